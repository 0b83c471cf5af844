#!/usr/bin/env bash
# Builds the lab guest from Debian packages and prints the directory it is in:
#   vmlinuz  initrd.img  disk.qcow2  id_ed25519 (client key for root's ssh)  host_key.pub
#
# The directory is named after a hash of this directory's files, so a change rebuilds and an unchanged
# guest costs nothing. `--force` rebuilds, which also picks up newer Debian packages.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${DORMOUSE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/dormouse}/guest
modules=(
  virtio_ring virtio virtio_mmio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci
  failover net_failover virtio_net virtio_console virtio_blk virtio_balloon virtio-rng
  evdev button
)

# Of the packages that others depend on: they hold no library, or scripts that the guest never runs.
unneeded='^(gcc-.*-base|debconf|cdebconf|init-system-helpers|lsb-base|sysvinit-utils|perl-base|dpkg|tar)'

say() { printf 'guest: %s\n' "$*" >&2; }
stamp=$(cd "$here" && cat build.sh init guestd.c | sha256sum | cut -c1-16)
out=$cache/$stamp

if [[ ${1:-} != --force && -e $out/complete ]]; then
  echo "$out"
  exit 0
fi

mkdir -p "$cache/debs"
exec 9>"$cache/lock"
flock 9
if [[ ${1:-} != --force && -e $out/complete ]]; then # another build finished while we waited
  echo "$out"
  exit 0
fi

work=$(mktemp -d "$cache/tmp.XXXXXX")
trap 'rm -rf "$work"' EXIT
root=$work/root pkg=$work/pkg new=$work/new
mkdir -p "$root"/{bin,sbin,usr/sbin,dev,proc,sys,tmp,run,var,etc/dropbear,www/cgi-bin,lib/modules,lib64} \
  "$root"/lib/x86_64-linux-gnu "$pkg" "$new"
mkdir -p -m 700 "$root"/root/.ssh

# The packages by name: the meta package's real kernel, and dropbear and QEMU's guest agent with the libraries
# that they need.
packages() {
  apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image/ {print $2; exit}'
  echo busybox-static
  apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks \
    --no-replaces --no-enhances dropbear-bin qemu-guest-agent | grep -E '^[a-z]' | grep -v -E "$unneeded" | sort -u
}

fetch() {
  local p
  [[ -n $(apt-cache search --names-only '^linux-image-cloud-amd64$') ]] || apt-get update -qq
  say "fetching Debian packages"
  # As root, apt would warn that its download user cannot write here.
  (cd "$cache/debs" && packages | xargs apt-get download -qq -o APT::Sandbox::User=root)
  for p in $(packages); do
    dpkg-deb -x "$(newest "$p")" "$pkg"
  done
}

newest() {
  find "$cache/debs" -name "$1_*.deb" -printf '%T@ %p\n' | sort -rn | head -n1 | cut -d' ' -f2-
}

copy_modules() {
  local m found
  for m in "${modules[@]}"; do
    found=$(find "$pkg/lib/modules" -name "$m.ko" -print -quit)
    [[ -n $found ]] || { say "the kernel has no module $m"; return 1; }
    install -m 644 "$found" "$root/lib/modules/$m.ko"
  done
}

# The shared objects that $1 needs, and those that they need.
copy_libraries() {
  local lib found
  for lib in $(readelf -d "$1" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p'); do
    [[ -e $root/lib/x86_64-linux-gnu/$lib || -e $root/lib64/$lib ]] && continue
    found=$(find "$pkg" -path '*x86_64-linux-gnu*' -name "$lib" -print -quit)
    [[ -n $found ]] || { say "no package holds $lib"; return 1; }
    install -m 755 "$found" "$root/lib/x86_64-linux-gnu/$lib"
    copy_libraries "$found"
  done
}

copy_programs() {
  install -m 755 "$pkg/bin/busybox" "$root/bin/busybox"
  ln -s busybox "$root/bin/sh"
  install -m 755 "$pkg/usr/sbin/dropbear" "$root/usr/sbin/dropbear"
  install -m 755 "$pkg/usr/sbin/qemu-ga" "$root/usr/sbin/qemu-ga"
  copy_libraries "$root/usr/sbin/dropbear"
  copy_libraries "$root/usr/sbin/qemu-ga"
  install -m 755 "$(find "$pkg" -path '*x86_64-linux-gnu*' -name ld-linux-x86-64.so.2 -print -quit)" \
    "$root/lib64/ld-linux-x86-64.so.2"
  gcc -static -O2 -Wall -Wextra -pthread -o "$root/sbin/guestd" "$here/guestd.c"
  strip "$root/sbin/guestd"
  install -m 755 "$here/init" "$root/init"
}

# Every name that busybox answers to, so that a test's ssh command finds its tools.
link_applets() {
  local a
  for a in $("$root/bin/busybox" --list); do
    [[ -e $root/bin/$a || $a == busybox ]] || ln -s busybox "$root/bin/$a"
  done
  ln -s ../bin/busybox "$root/sbin/hwclock" # where the guest agent looks
}

make_keys() {
  ssh-keygen -q -t ed25519 -N '' -C dormouse-lab -f "$new/id_ed25519"
  install -m 600 "$new/id_ed25519.pub" "$root/root/.ssh/authorized_keys"
  "$root/lib64/ld-linux-x86-64.so.2" --library-path "$root/lib/x86_64-linux-gnu" \
    "$pkg/usr/bin/dropbearkey" -t ed25519 -f "$root/etc/dropbear/host_key" |
    grep '^ssh-' >"$new/host_key.pub"
}

write_files() {
  echo 'root:x:0:0:root:/root:/bin/sh' >"$root/etc/passwd"
  echo 'root:x:0:' >"$root/etc/group"
  printf 'ID=dormouse-lab\nNAME="Dormouse lab guest"\nPRETTY_NAME="Dormouse lab guest"\n' >"$root/etc/os-release"
  ln -s ../run "$root/var/run"
  : >"$root/run/utmp"
  echo '<!doctype html><title>dormouse</title><p>Awake.</p>' >"$root/www/index.html"
  cat >"$root/www/cgi-bin/uptime" <<'CGI'
#!/bin/sh
printf 'Content-Type: text/plain\r\n\r\n'
read -r up _ </proc/uptime
read -r id </proc/sys/kernel/random/boot_id
echo "$up $id"
CGI
  # The least that a DHCP client's script has to do.
  cat >"$root/etc/udhcpc.script" <<'DHCP'
#!/bin/sh
case $1 in
  deconfig) ip -4 addr flush dev "$interface" ;;
  bound | renew) ip addr replace "$ip/$mask" dev "$interface" ;;
esac
DHCP
  chmod 755 "$root/www/cgi-bin/uptime" "$root/etc/udhcpc.script"
}

fetch
say "building the image"
copy_modules
copy_programs
link_applets
make_keys
write_files
cp "$(find "$pkg/boot" -name 'vmlinuz-*' -print -quit)" "$new/vmlinuz"
# Not compressed: an emulated processor takes half a second to unpack what the host reads in no time.
(cd "$root" && find . -print0 | sort -z |
  cpio --quiet --null --create --format=newc --reproducible -R 0:0) >"$new/initrd.img"
if command -v qemu-img >/dev/null; then qemu-img create -q -f qcow2 "$new/disk.qcow2" 1G; fi
touch "$new/complete"

# Labs hold hard links to the files, so a forced rebuild takes nothing from a running guest.
if [[ -e $out ]]; then mv "$out" "$work/old"; fi
mv "$new" "$out"
say "built $out ($(du -h "$out/initrd.img" | cut -f1) initrd)"
echo "$out"
