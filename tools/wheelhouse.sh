#!/bin/sh
# Everything that an air-gapped box needs, in one folder: wheels/, hashes, the unit, a configuration and install.sh.
#
# Usage: tools/wheelhouse.sh --arch amd64|arm64 --out DIR
#
# The wheels are for the Python that runs this ($PYTHON, else python3): on the box the same minor version is needed.
set -eu
cd "$(dirname "$0")/.."
. tools/platform.sh

usage() {
  echo "usage: tools/wheelhouse.sh --arch amd64|arm64 --out DIR" >&2
  exit 2
}

arch="" out=""
while [ $# -gt 0 ]; do
  case "$1 ${2:+value}" in
    "--arch value") arch="$2" ;;
    "--out value") out="$2" ;;
    *) usage ;;
  esac
  shift 2
done
if [ -z "$arch" ] || [ -z "$out" ]; then
  usage
fi
machine="$(machine "$arch")"
python="${PYTHON:-python3}"
if [ -e "$out" ] && [ ! -e "$out/SHA256SUMS" ] && [ -n "$(ls -A "$out")" ]; then
  echo "$out holds something that is not a wheelhouse; name a new folder" >&2
  exit 2
fi

read -r version wanted <<FACTS
$("$python" -c 'import sys, tomllib
print(tomllib.load(open("pyproject.toml", "rb"))["project"]["version"], "%d.%d" % sys.version_info[:2])')
FACTS
# The same commit gives the same wheel.
SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}"
export SOURCE_DATE_EPOCH

rm -rf "$out"
mkdir -p "$out/wheels"
"$python" -m pip wheel --quiet --no-deps --wheel-dir "$out/wheels" .
# pip's word on a pin without a wheel for this platform is "No matching distribution found for NAME==VERSION".
# shellcheck disable=SC2046  # many words on purpose
"$python" -m pip download --quiet --no-deps --require-hashes $(wheel_options "$arch") --dest "$out/wheels" \
  --requirement deploy/requirements.lock --requirement deploy/pip.lock

wheel="$(cd "$out/wheels" && ls fisher_agent-"$version"-*.whl)"
{
  cat deploy/requirements.lock
  echo "fisher-agent==$version --hash=sha256:$(sha256sum "$out/wheels/$wheel" | cut -d ' ' -f 1)"
} >"$out/requirements.txt"
sed -e "s/@VERSION@/$version/" -e "s/@PYTHON@/$wanted/" -e "s/@MACHINE@/$machine/" deploy/wheelhouse/install.sh \
  >"$out/install.sh"
cp deploy/fisher-agent.service deploy/fisher-agent.toml "$out/"
chmod 0755 "$out/install.sh"
(
  cd "$out"
  sha256sum -- wheels/* requirements.txt install.sh fisher-agent.service fisher-agent.toml >SHA256SUMS
)
echo "$out: fisher-agent $version for $arch, Python $wanted, $(find "$out/wheels" -name '*.whl' | wc -l) wheels," \
  "$(du -sm "$out" | cut -f 1) MB"
