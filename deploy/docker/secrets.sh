#!/bin/sh
# Makes the secrets of compose.yaml in secrets/, once; what is there already stays.
#
# Usage: sh secrets.sh
#
# The files are readable by all because the containers' accounts, whose numbers differ, read them; the folder is not.
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
chmod 0644 secrets/*
echo "secrets/: $(find secrets -type f | wc -l) files"
