#!/bin/sh
# Installs fisher-agent @VERSION@ from this folder, without a network. Run as root on the box.
#
# Usage: sh install.sh [PREFIX]          PREFIX is /opt/fisher-agent unless named
#
# Every release has a folder of its own, PREFIX-VERSION; PREFIX is a link to the one in use. Going back is
#   ln -sfn /opt/fisher-agent-OLD /opt/fisher-agent && systemctl restart fisher-agent
set -eu
version="@VERSION@" python="python@PYTHON@" machine="@MACHINE@"
prefix="${1:-/opt/fisher-agent}"
here="$(cd "$(dirname "$0")" && pwd)"

refuse() {
  echo "install.sh: $1" >&2
  exit 1
}

case "$prefix" in
  /?*) ;;
  *) refuse "PREFIX is \"$prefix\"; it must be an absolute path, for the scripts inside name it" ;;
esac
[ "$(uname -m)" = "$machine" ] || refuse "these wheels are for $machine; this box is $(uname -m). Make a wheelhouse for it"
command -v "$python" >/dev/null || refuse "$python is missing; these wheels fit no other version of Python"
[ -L "$prefix" ] || [ ! -e "$prefix" ] || refuse "$prefix is a folder (another kind of installation); move it away first"
(cd "$here" && sha256sum --quiet --check SHA256SUMS) ||
  refuse "files differ from SHA256SUMS: copy the folder again, or ask where it comes from"

target="$prefix-$version"
if [ ! -e "$target/.complete" ]; then
  # Left by an attempt that was interrupted.
  rm -rf "$target"
  # pip comes along as a wheel, so that Debian's python3-venv is not needed.
  "$python" -m venv --without-pip "$target"
  "$python" "$(ls "$here"/wheels/pip-*.whl)/pip" --python "$target/bin/python" --isolated install --quiet --no-index \
    --find-links "$here/wheels" --require-hashes --no-deps --requirement "$here/requirements.txt"
  "$target/bin/fisher-agent" --version
  touch "$target/.complete"
fi
ln -sfn "$target" "$prefix"
echo "$prefix -> $target"
echo "A first installation goes on with the lines at the top of $here/fisher-agent.service; an upgrade with"
echo "  systemctl restart fisher-agent"
