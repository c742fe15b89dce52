#!/bin/sh
# The package's whole life in a fresh Debian: install, run, edit, upgrade, downgrade, remove, purge; under systemd, too.
#
# Usage: tools/test_deb.sh [--from OLD.deb] [DEB]
#
# DEB is the newest in dist/ unless named. With --from the upgrade is from that package, which enrols a machine and watches
# it, to DEB; without it, from DEB to itself under a higher number. Needs root, debootstrap and a Debian mirror.
# SUITE (bookworm) must have the Python that the package was built for. The base system is kept in build/ for the next run.
# shellcheck disable=SC2012,SC2016  # the names are our own; single quotes are for apt, dpkg and the shell inside
set -eu
cd "$(dirname "$0")/.."

old=""
if [ "${1:-}" = --from ]; then
  old="$2"
  shift 2
fi
deb="${1:-$(ls -t dist/fisher-agent_*_"$(dpkg --print-architecture)".deb | head -n 1)}"
suite="${SUITE:-bookworm}"
[ "$(id -u)" = 0 ] || { echo "tools/test_deb.sh: a chroot needs root" >&2; exit 1; }
command -v debootstrap >/dev/null || { echo "tools/test_deb.sh: apt-get install debootstrap" >&2; exit 1; }

mirror="${MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | head -n 1)}"
base="$PWD/build/debootstrap-$suite.tar"
root="$(mktemp -d)"
systemd=""
ended() {
  kill -KILL "$systemd" || true  # unshare blocks SIGTERM; what it started dies with it
  wait "$systemd" || true
  systemd=""
  for _ in $(seq 50); do
    find "$cgroup" -depth -type d -exec rmdir {} + 2>/dev/null && return
    sleep 0.2
  done
}
cleanup() {
  [ -z "$systemd" ] || ended
  for mounted in dev/pts dev proc; do
    mountpoint -q "$root/$mounted" && umount "$root/$mounted"
  done
  rm -rf --one-file-system "$root"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

if [ ! -e "$base" ]; then
  mkdir -p build
  debootstrap --variant=minbase "$suite" "$root" "$mirror" >"build/debootstrap-$suite.log"
  tar -C "$root" -cf "$base.part" .
  mv "$base.part" "$base"
else
  tar -C "$root" -xf "$base"
fi
chmod 0755 "$root"  # mktemp made it its owner's alone, and there are other accounts inside
cp /etc/resolv.conf "$root/etc/resolv.conf"
mount -t proc proc "$root/proc"
mount --bind /dev "$root/dev"

inside() { chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 \
  DEBIAN_FRONTEND=noninteractive "$@"; }
fact() { echo "ok: $1"; }
fail() {
  echo "FAILED: $1" >&2
  exit 1
}

# -- a second release: the same files under a higher number
mkdir "$root/packages"
cp "${old:-$deb}" "$root/packages/first.deb"
dpkg-deb -R "$deb" "$root/packages/next"
first="$(dpkg-deb --field "$deb" Version)"
sed -i "s/^Version: .*/Version: $first+next1/" "$root/packages/next/DEBIAN/control"
dpkg-deb --root-owner-group -Znone --build "$root/packages/next" "$root/packages/next.deb" >/dev/null
rm -rf "$root/packages/next"

# -- install
inside apt-get update -qq
inside apt-get install -y -qq --no-install-recommends /packages/first.deb >"build/test-deb.log" 2>&1 ||
  { tail -n 30 build/test-deb.log >&2; fail "apt-get install"; }
[ "$(inside dpkg-query -W -f '${Status}' fisher-agent)" = "install ok installed" ] || fail "not installed"
fact "installs with what the mirror has, without systemd"
case "$(inside fisher-agent --version)" in
  "fisher-agent "*) fact "$(inside fisher-agent --version)" ;;
  *) fail "fisher-agent --version" ;;
esac
[ "$(inside stat -c %U:%G:%a /var/lib/fisher-agent /etc/fisher-agent /etc/fisher-agent/config.toml | tr '\n' ' ')" = \
  "fisher-agent:fisher-agent:750 root:fisher-agent:750 root:fisher-agent:640 " ] || fail "owners and modes"
fact "state belongs to the account, the configuration is its to read"
[ ! -e "$root/etc/systemd/system/multi-user.target.wants/fisher-agent.service" ] || fail "the unit is enabled"
said="$(inside runuser -u fisher-agent -- fisher-agent run 2>&1)" && fail "it runs without a configuration"
case "$said" in
  *"site: is required"*) fact "not enabled; started by hand it says: $(echo "$said" | head -n 1)" ;;
  *) fail "the word on an unwritten configuration: $said" ;;
esac
# OpenVINO's plugin for Intel GPUs wants libOpenCL.so.1; the agent loads the one for the CPU.
missing="$(inside sh -c 'for so in $(find /opt/fisher-agent -name "*.so*" -type f); do
  LD_LIBRARY_PATH=$(find /opt/fisher-agent -name "*.so*" -type f -printf "%h\n" | sort -u | tr "\n" ":") ldd "$so" 2>/dev/null |
    grep "not found" | sed "s|^|$so |"; done' | grep -v libopenvino_intel_gpu_plugin)" || true
[ -z "$missing" ] || fail "libraries are missing: $missing"
fact "every shared library finds what it needs"

# -- the agent itself, as the account that the service has
report="$(inside runuser -u fisher-agent -- env OMP_NUM_THREADS=1 fisher-agent demo --once --json 2>build/test-deb-demo.log)" ||
  { tail -n 20 build/test-deb-demo.log >&2; fail "fisher-agent demo --once --json"; }
echo "$report" | python3 -c 'import json, sys; json.load(sys.stdin)' || fail "the demo's report is no JSON: $report"
fact "demo: $report"

# -- configuration and state live through an upgrade
cat >"$root/etc/fisher-agent/config.toml" <<'CONFIG'
site = "here"
edge = "box"
state_dir = "/var/lib/fisher-agent"
control_socket = "/var/lib/fisher-agent/ctl.sock"
[page]
enabled = false
[[sources]]
name = "plant"
type = "mqtt"
url = "mqtt://127.0.0.1:1"
[[machines]]
id = "press-07"
[[machines.channels]]
id = "vib"
kind = "vibration"
unit = "g"
rate_hz = 8000
source = "plant"
topic = "raw/press-07/vib"
format = "f32le"
CONFIG
inside runuser -u fisher-agent -- touch /var/lib/fisher-agent/kept
inside /opt/fisher-agent/bin/python3 -c '
import numpy as np
t = np.arange(8000 * 120) / 8000
x = 0.1 * np.random.default_rng(1).standard_normal(len(t)) + 0.05 * np.sin(2 * np.pi * 29 * t)
np.savez("/tmp/normal.npz", vib=x.astype(np.float32), rate_hz=8000.0, t_ns=0)'
agent() { inside runuser -u fisher-agent -- env OMP_NUM_THREADS=1 "$@"; }
agent fisher-agent enroll --machine press-07 --from /tmp/normal.npz >build/test-deb-enrol.log 2>&1 ||
  { tail -n 20 build/test-deb-enrol.log >&2; fail "fisher-agent enroll"; }
# Watches for a moment, and says whether it judges the machine by its bank; the sensor is away, so it is degraded.
watched() {
  judges=no
  agent timeout --preserve-status --signal TERM 30 fisher-agent run >build/test-deb-run.log 2>&1 &
  for _ in $(seq 25); do
    sleep 1
    agent fisher-agent status --json >build/test-deb-status.json 2>/dev/null || continue
    python3 -c '
import json, sys
said = json.load(open("build/test-deb-status.json"))
sys.exit(0 if said["machines"]["press-07"]["enrolled"] and "bank press-07" not in said["degraded"] else 1)' || continue
    judges=yes
    break
  done
  wait
  [ "$judges" = yes ] || { cat build/test-deb-status.json build/test-deb-run.log >&2; fail "it does not judge"; }
}
watched
fact "a machine is enrolled and watched"
inside apt-get install -y -qq --no-install-recommends /packages/next.deb >>build/test-deb.log 2>&1 || fail "upgrade"
[ "$(inside dpkg-query -W -f '${Version}' fisher-agent)" = "$first+next1" ] || fail "not upgraded"
grep -q 'site = "here"' "$root/etc/fisher-agent/config.toml" || fail "the upgrade overwrote the configuration"
[ "$(inside stat -c %U:%G:%a /etc/fisher-agent/config.toml)" = root:fisher-agent:640 ] || fail "mode after the upgrade"
[ -e "$root/var/lib/fisher-agent/kept" ] || fail "the upgrade deleted state"
fact "an upgrade from $(dpkg-deb --field "${old:-$deb}" Version) keeps configuration, its mode, and state"
watched
fact "the bank and the state of the old release serve the new one"
inside dpkg-reconfigure fisher-agent
inside sh /var/lib/dpkg/info/fisher-agent.postinst configure "$first"
fact "postinst may run again"

# -- and a way back
inside apt-get install -y -qq --allow-downgrades --no-install-recommends /packages/first.deb >>build/test-deb.log 2>&1 ||
  fail "downgrade"
inside fisher-agent --version >/dev/null || fail "the agent after the downgrade"
fact "a downgrade works"

# -- under a real systemd, in namespaces of its own
inside apt-get install -y -qq --no-install-recommends systemd >>build/test-deb.log 2>&1 || fail "apt-get install systemd"
inside dpkg -i /packages/first.deb >>build/test-deb.log 2>&1 || fail "install again"
# A group of its own, which is removed after it.
cgroup="$(findmnt -n -o TARGET -t cgroup2 | head -n 1)$(sed -n 's/^0:://p' /proc/self/cgroup)/fisher-test-deb-$$"
mkdir "$cgroup"
sh -c 'echo $$ >"$0/cgroup.procs" && exec "$@"' "$cgroup" unshare --mount --uts --ipc --pid --cgroup --fork --kill-child \
  tests/servers/systemd.sh "$root" >build/test-deb-systemd.log 2>&1 &
systemd=$!
within() { nsenter --target "$(tr -d ' ' <"/proc/$systemd/task/$systemd/children")" --mount --uts --ipc --pid --cgroup -- \
  /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive "$@"; }
booted() { [ "$(within systemctl is-active tested.target 2>/dev/null)" = active ]; }
for _ in $(seq 50); do
  booted && break
  sleep 0.2
done
booted || { cat build/test-deb-systemd.log >&2; fail "systemd does not start"; }
main_pid() { within systemctl show --value --property MainPID fisher-agent.service; }

within dpkg -i /packages/next.deb >>build/test-deb.log 2>&1 || fail "upgrade with systemd, stopped"
[ "$(main_pid)" = 0 ] || fail "an upgrade started a service that was stopped"
within systemctl start fisher-agent.service || { within journalctl --no-pager -n 40 >&2; fail "systemctl start"; }
before="$(main_pid)"
within fisher-agent status --json >build/test-deb-status.json || fail "the running service does not answer"
fact "the service starts under systemd $(within systemctl --version | awk 'NR == 1 { print $2 }'), and answers"
within dpkg -i /packages/next.deb >>build/test-deb.log 2>&1 || fail "upgrade with systemd, running"
[ "$(within systemctl is-active fisher-agent.service)" = active ] || fail "an upgrade ended the service"
[ "$(main_pid)" != "$before" ] || fail "an upgrade left the old code running"
fact "an upgrade restarts the service only where it was running"
within dpkg -r fisher-agent >>build/test-deb.log 2>&1 || fail "remove"
[ "$(main_pid)" = 0 ] || fail "a removal left the service running"
fact "a removal stops it"
ended

# -- remove and purge
[ -e "$root/var/lib/fisher-agent/kept" ] || fail "remove deleted state"
[ -e "$root/etc/fisher-agent/config.toml" ] || fail "remove deleted the configuration"
[ ! -e "$root/opt/fisher-agent" ] || fail "left behind: $(find "$root/opt/fisher-agent" | head -n 5)"
fact "remove keeps state and configuration, and nothing of the program"
echo secret >"$root/etc/fisher-agent/influx.token"
inside dpkg --purge fisher-agent >>build/test-deb.log 2>&1 || fail "purge"
inside dpkg --purge fisher-agent >>build/test-deb.log 2>&1 || fail "purge again"
left="$(find "$root" -xdev -path "$root/packages" -prune -o -name '*fisher-agent*' ! -path '*/log/*' -print)"
[ -z "$left" ] || fail "purge left $left"
fact "purge deletes state, configuration and secrets"
