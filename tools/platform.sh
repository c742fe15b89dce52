# shellcheck shell=sh
# Read (".") by what fetches or installs wheels for a box that need not be this one.

# The glibc of Debian 12, the oldest system that is supported: a wheel that needs a newer one is not taken.
glibc_minor=36

# machine ARCH: what Python and the kernel call Debian's architecture.
machine() {
  case "$1" in
    amd64) echo x86_64 ;;
    arm64) echo aarch64 ;;
    *)
      echo "architecture $1 is not supported: amd64 and arm64 are, because OpenVINO has wheels for these" >&2
      return 2
      ;;
  esac
}

# wheel_options ARCH: the options that make pip take wheels for ARCH and this Python, and nothing that must be compiled.
# Every manylinux tag is named because pip does not count downwards from the newest.
wheel_options() {
  name="$(machine "$1")" || return
  printf '%s ' --only-binary=:all: --platform "manylinux2014_$name" --platform "manylinux2010_$name"
  minor=5
  while [ "$minor" -le "$glibc_minor" ]; do
    printf '%s ' --platform "manylinux_2_${minor}_$name"
    minor=$((minor + 1))
  done
  printf '%s ' --platform "linux_$name"
}
