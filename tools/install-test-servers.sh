#!/bin/sh
# Install the servers that the tests start (a broker, two databases, Node), the browser that opens the page, openssl,
# minisign, systemd, which the unit is tried under, iproute2, which builds a network, and the checker of shell scripts:
# all Debian and Ubuntu packages; and with npm, into .venv, the Node-RED that the flow of deploy/node-red is tried in. On
# Ubuntu `chromium` is a snap, which needs a snapd: any Chrome or Chromium on PATH will do there.
set -eu

missing=""
need() { [ -x "$1" ] || missing="$missing $2"; }
PATH="$PATH:/usr/sbin:/sbin"
need "$(command -v mosquitto || echo /nowhere)" mosquitto
need "$(command -v mosquitto_sub || echo /nowhere)" mosquitto-clients
need "$(command -v systemd-analyze || echo /nowhere)" systemd
need "$(command -v ip || echo /nowhere)" iproute2
need "$(command -v openssl || echo /nowhere)" openssl
need "$(command -v influxd || echo /nowhere)" influxdb
need "$(command -v victoria-metrics || echo /nowhere)" victoria-metrics
browser=""
for name in chromium chromium-browser google-chrome google-chrome-stable; do
  path="$(command -v $name)" || continue
  # Ubuntu's package without a snapd is a script that only says so.
  "$path" --version >/dev/null 2>&1 && browser="$path" && break
done
if [ -z "$browser" ]; then
  if [ "$(. /etc/os-release && echo "$ID")" = ubuntu ]; then
    echo "The tests of the page need Chrome or Chromium on PATH; on Ubuntu: snap install chromium" >&2
  else
    missing="$missing chromium"
  fi
fi
need "$(command -v node || echo /nowhere)" nodejs
need "$(command -v npm || echo /nowhere)" npm
need "$(command -v minisign || echo /nowhere)" minisign
need "$(command -v shellcheck || echo /nowhere)" shellcheck

node_red=4.1.8
# npm trusts the authorities that this box trusts, such as that of a plant's own proxy, and not only its built-in ones.
if [ -z "${NODE_EXTRA_CA_CERTS:-}" ] && [ -r /etc/ssl/certs/ca-certificates.crt ]; then
  export NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt
fi
install_node_red() {
  at=.venv/node-red
  [ "$(cat "$at/version" 2>/dev/null)" = "$node_red" ] && return
  echo "installing node-red $node_red"
  npm install --prefix "$at" --no-save --no-audit --no-fund --no-update-notifier --loglevel=error "node-red@$node_red" \
    >/dev/null
  echo "$node_red" >"$at/version"
}

if [ -z "$missing" ]; then
  install_node_red
  exit 0
fi

if [ "$(id -u)" = 0 ]; then
  as_root=""
elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
  as_root="sudo -n"
else
  echo "The tests need these packages, and installing them needs root:$missing" >&2
  echo "Run: sudo apt-get install$missing" >&2
  exit 1
fi
echo "installing$missing"
$as_root apt-get update -qq
# --no-install-recommends: the tests start their own servers on free ports of the loopback.
# shellcheck disable=SC2086  # several packages
DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -qq --no-install-recommends $missing >/dev/null
install_node_red
