#!/bin/sh
# dist/fisher-agent_VERSION_ARCH.deb: a virtual environment in /opt, the unit, a configuration that waits to be written.
#
# Usage: tools/build_deb.sh [--arch amd64|arm64] [--compress xz|none]
#
# The package is for the Debian or Ubuntu release whose python3 is the version that runs this ($PYTHON, else python3):
# 3.11 is Debian 12, 3.12 Ubuntu 24.04, 3.13 Debian 13. Nothing of the other architecture is run, so either builds both.
# Two builds of one commit with one lock are the same file, byte for byte.
set -eu
cd "$(dirname "$0")/.."
. tools/platform.sh

usage() {
  echo "usage: tools/build_deb.sh [--arch amd64|arm64] [--compress xz|none]" >&2
  exit 2
}

arch="$(dpkg --print-architecture)" compress=xz
while [ $# -gt 0 ]; do
  case "$1 ${2:-}" in
    --arch\ a*) arch="$2" ;;
    "--compress xz" | "--compress none") compress="$2" ;;
    *) usage ;;
  esac
  shift 2
done
machine "$arch" >/dev/null
python="${PYTHON:-python3}"
SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}"
export SOURCE_DATE_EPOCH

build="build/deb-$arch"
root="$build/root"
rm -rf "$build"
umask 022
PYTHON="$python" tools/wheelhouse.sh --arch "$arch" --out "$build/wheelhouse"

read -r version running following <<FACTS
$("$python" -c 'import sys, tomllib
version = tomllib.load(open("pyproject.toml", "rb"))["project"]["version"]
major, minor = sys.version_info[:2]
print(version, f"{major}.{minor}", f"{major}.{minor + 1}")')
FACTS
# 0.2.0rc1 comes before 0.2.0 in Python; in Debian 0.2.0~rc1 does.
debian_version="$(echo "$version" | sed -E 's/\.?(a|b|rc|dev)([0-9]+)/~\1\2/g')"

# -- /opt/fisher-agent: what `python3 -m venv` would make on the box, less pip and the activation scripts
opt="$root/opt/fisher-agent"
site="$opt/lib/python$running/site-packages"
mkdir -p "$opt/bin" "$site"
# shellcheck disable=SC2046  # many words on purpose
"$python" -m pip --isolated install --quiet --no-index --find-links "$build/wheelhouse/wheels" --require-hashes --no-deps \
  --no-compile $(wheel_options "$arch") --target "$site" --requirement "$build/wheelhouse/requirements.txt"
# Scripts of the dependencies, with this machine's paths in them, and headers.
rm -rf "${site:?}/bin" "${site:?}/include"
ln -s "/usr/bin/python$running" "$opt/bin/python3"
printf 'home = /usr/bin\ninclude-system-site-packages = false\nversion = %s\n' "$running" >"$opt/pyvenv.cfg"
for name in fisher-agent fisher-models; do
  module="$(echo "$name" | tr - _)"
  called="$("$python" -c 'import sys, tomllib
print(tomllib.load(open("pyproject.toml", "rb"))["project"]["scripts"][sys.argv[1]].partition(":")[2])' "$name")"
  printf '#!/opt/fisher-agent/bin/python3\nimport sys\n\nfrom %s.cli import %s\n\nsys.exit(%s())\n' "$module" "$called" "$called" \
    >"$opt/bin/$name"
  chmod 0755 "$opt/bin/$name"
  mkdir -p "$root/usr/bin"
  ln -s "/opt/fisher-agent/bin/$name" "$root/usr/bin/$name"
done

# -- the rest of the box
install -D -m 0644 deploy/debian/config.toml "$root/etc/fisher-agent/config.toml"
mkdir -p "$root/lib/systemd/system"
# Its first lines tell how to install it by hand.
sed '1,/^$/d' deploy/fisher-agent.service >"$root/lib/systemd/system/fisher-agent.service"
doc="$root/usr/share/doc/fisher-agent"
mkdir -p "$doc/examples"
cp deploy/debian/copyright "$doc/copyright"
cp deploy/fisher-agent.toml "$doc/examples/config.toml"
cp -r deploy/fisher-agent-gpu.conf deploy/mosquitto deploy/node-red "$doc/examples/"
gzip -9n <CHANGELOG.md >"$doc/NEWS.gz"
{
  printf 'fisher-agent (%s) stable; urgency=medium\n\n  * What changed stands in NEWS.gz.\n\n' "$debian_version"
  printf ' -- The fisher-agent maintainers <maintainers@fisher-agent.example>  %s\n' \
    "$(LC_ALL=C date -u -R -d "@$SOURCE_DATE_EPOCH")"
} | gzip -9n >"$doc/changelog.gz"
install -D -m 0644 deploy/debian/lintian-overrides "$root/usr/share/lintian/overrides/fisher-agent"

# A wheel may carry any mode; none has a program that the agent runs.
find "$root" -type d -exec chmod 0755 {} +
find "$site" -type f -exec chmod 0644 {} +

# -- the package
# The newest glibc that any wheel was built for: of each wheel the oldest tag that it carries, of these the newest.
glibc="$("$python" - "$site" <<'TAGS'
import re
import sys
from pathlib import Path

needed = [
    min(int(minor) for minor in found)
    for wheel in Path(sys.argv[1]).glob("*.dist-info/WHEEL")
    if (found := re.findall(r"manylinux_2_(\d+)_", wheel.read_text()))
]
print(f"2.{max(needed)}")
TAGS
)"
mkdir "$root/DEBIAN"
sed -e "s/@VERSION@/$debian_version/" -e "s/@ARCH@/$arch/" -e "s/@PYTHON@/$running/" -e "s/@NEXT_PYTHON@/$following/" \
  -e "s/@GLIBC@/$glibc/" -e "s/@SIZE@/$(du -sk --apparent-size --exclude=DEBIAN "$root" | cut -f 1)/" \
  deploy/debian/control >"$root/DEBIAN/control"
echo /etc/fisher-agent/config.toml >"$root/DEBIAN/conffiles"
for script in postinst prerm postrm; do
  install -m 0755 "deploy/debian/$script" "$root/DEBIAN/$script"
done
(cd "$root" && find . -type f ! -path './DEBIAN/*' -printf '%P\n' | LC_ALL=C sort | xargs -d '\n' md5sum >DEBIAN/md5sums)
find "$root" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
mkdir -p dist
dpkg-deb --root-owner-group -Z"$compress" --build "$root" "dist/fisher-agent_${debian_version}_$arch.deb"
