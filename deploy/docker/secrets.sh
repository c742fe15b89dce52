#!/bin/sh
# Makes the secrets of compose.yaml in secrets/, once; what is there already stays.
#
# Usage: sh secrets.sh
#
# Most files are readable by all because the containers' accounts, whose numbers differ, read them; the folder is not. The
# agent takes no secret that others could read: its copies belong to its account, whose number is in the Dockerfile.
set -eu
cd "$(dirname "$0")"

mkdir -p secrets
chmod 0700 secrets
for name in influx_password influx_token mqtt_password grafana_password hmi_password sensors_password; do
  [ -s "secrets/$name" ] || openssl rand -hex 32 >"secrets/$name"
done
if [ ! -s secrets/mosquitto_users ]; then
  for user in fisher hmi sensors; do
    file="secrets/${user}_password"
    [ "$user" = fisher ] && file=secrets/mqtt_password
    echo "$user:$(cat "$file")"
  done >secrets/mosquitto_users.part
  # Turns the words into hashes, in place.
  if command -v mosquitto_passwd >/dev/null; then
    mosquitto_passwd -U secrets/mosquitto_users.part
  else
    docker run --rm -v "$PWD/secrets:/secrets" eclipse-mosquitto:2 mosquitto_passwd -U /secrets/mosquitto_users.part
  fi
  mv secrets/mosquitto_users.part secrets/mosquitto_users
fi
for name in influx_password influx_token mqtt_password grafana_password hmi_password sensors_password mosquitto_users; do
  chmod 0644 "secrets/$name"
done
agent=970
for name in agent_influx_token agent_mqtt_password; do
  [ -e "secrets/$name" ] && continue
  install -m 0600 "secrets/${name#agent_}" "secrets/$name.part"
  mv "secrets/$name.part" "secrets/$name"
  if [ "$(id -u)" = 0 ]; then
    chown "$agent:$agent" "secrets/$name"
  else
    docker run --rm -v "$PWD/secrets:/secrets" eclipse-mosquitto:2 chown "$agent:$agent" "/secrets/$name"
  fi
done
echo "secrets/: $(find secrets -type f | wc -l) files"
