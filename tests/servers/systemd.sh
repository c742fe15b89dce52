#!/bin/sh
# The first process of a small system, which becomes systemd.
#
# Usage: unshare --mount --uts --ipc --pid --cgroup --fork --kill-child systemd.sh ROOT [FROM TO]...
#        the same with --try, and no ROOT: says whether that is allowed here
#
# ROOT is a folder that becomes the system's root; what lies in it is kept. Where it has no /usr, it gets this box's. Each
# folder FROM is shown at TO. What is shown is read-only. No service that is enabled is started, and the kernel, which is
# this box's, is neither set nor given modules.
set -eu

kernel() {
  mount -t proc proc proc
  mount --bind proc/sys proc/sys
  mount -o remount,bind,ro proc/sys
  mount -t sysfs -o ro sysfs sys
  mount -t cgroup2 cgroup2 sys/fs/cgroup
}
shown() {
  mkdir -p "./$2"
  mount --bind "$1" "./$2"
  mount -o remount,bind,ro "./$2"
}

mount --make-rprivate /
if [ "$1" = --try ]; then
  mount -t tmpfs tmpfs /mnt
  cd /mnt
  mkdir proc sys
  kernel
  shown /usr usr
  exit 0
fi
root="$1"
shift

mount --bind "$root" "$root"
cd "$root"
mkdir -p proc sys dev run tmp var/tmp var/log etc/systemd/system .old
chmod 1777 tmp var/tmp
if [ ! -d usr ]; then
  shown /usr usr
  for name in bin sbin lib lib32 lib64 libx32; do
    if [ -h "/$name" ]; then
      ln -s "$(readlink "/$name")" "$name"
    elif [ -d "/$name" ]; then
      shown "/$name" "$name"
    fi
  done
fi
while [ "$#" -gt 0 ]; do
  shown "$1" "$2"
  shift 2
done
[ -s etc/machine-id ] || tr -d - </proc/sys/kernel/random/uuid >etc/machine-id
printf '[Unit]\nRequires=basic.target\nAfter=basic.target\n' >etc/systemd/system/tested.target

kernel
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=755 tmpfs dev
for name in null zero full random urandom tty; do
  : >"dev/$name"
  mount --bind "/dev/$name" "dev/$name"
done
mkdir dev/pts dev/shm
mount -t tmpfs -o mode=1777 tmpfs dev/shm
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx

pivot_root . .old
umount -l .old
mount --make-rshared /  # as systemd does it itself outside of a container: by that it hands credentials to a service
exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot . \
  /usr/bin/setpriv --bounding-set=-sys_module,-sys_time,-sys_boot \
  /lib/systemd/systemd --unit=tested.target --log-target=journal
