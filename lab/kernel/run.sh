#!/usr/bin/env bash
# Runs a program as root on Debian's own kernel, in an emulated machine of its own: for what the
# kernel at hand lacks (VLAN-aware bridges, Open vSwitch's datapath), or does in a newer way.
#
#   lab/kernel/run.sh PROGRAM [ARGUMENT...]
#
# Prints what it prints, and ends with its exit status. The program's libraries, iproute2 and, if it
# is installed, Open vSwitch go with it. The kernel is the lab guest's (lab/guest/build.sh).
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${DORMOUSE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/dormouse}/guest
# In the order in which they are loaded.
modules=(
  llc stp garp mrp bridge 8021q veth tun
  crc32c_generic libcrc32c nf_defrag_ipv4 nf_defrag_ipv6 nf_conntrack nf_nat nf_conncount
  ipv6_nsh nsh openvswitch br_netfilter
  sch_ingress cls_bpf
)
programs=(ip bridge tc ovsdb-tool ovsdb-server ovs-vswitchd ovs-vsctl ovs-ofctl ovs-appctl)
timeout=${DORMOUSE_KERNEL_LAB_TIMEOUT:-900}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root

image=$("$here/../guest/build.sh")
package=$(find "$cache/debs" -name 'linux-image-*.deb' -printf '%T@ %p\n' | sort -rn | head -n1 | cut -d' ' -f2-)

copy() { # a program, to where it is found, with its libraries
  local file
  install -D -m 755 "$1" "$root/bin/$(basename "$1")" # follows links
  for file in $(ldd "$1" | grep -o '/[^ ]*'); do
    [[ -e $root$file ]] || install -D -m 755 "$file" "$root$file"
  done
}

mkdir -p "$root"/{dev,proc,sys,tmp,run,bin,lib/modules,var/tmp,etc} "$work/package"
ln -s ../run "$root/var/run" # where Open vSwitch looks for its sockets
dpkg-deb -x "$package" "$work/package"
for module in "${modules[@]}"; do
  file=$(find "$work/package/lib/modules" -name "$module.ko" -print -quit)
  # What is not a module is built in.
  [[ -z $file ]] && continue
  install -m 644 "$file" "$root/lib/modules/$module.ko"
  echo "$module" >>"$root/lib/modules/order"
done
for program in "${programs[@]}"; do
  if path=$(command -v "$program"); then copy "$path"; fi
done
if [[ -d /usr/share/openvswitch ]]; then
  install -D -m 644 -t "$root/usr/share/openvswitch" /usr/share/openvswitch/vswitch.ovsschema
fi
copy "$1"
# What only a debugger reads is most of it.
objcopy --strip-debug "$root/bin/$(basename "$1")"
dpkg-deb --fsys-tarfile "$(find "$cache/debs" -name 'busybox-static_*.deb' -print -quit)" |
  tar -x -O ./bin/busybox >"$root/bin/busybox"
chmod 755 "$root/bin/busybox"
for applet in $("$root/bin/busybox" --list); do
  [[ -e $root/bin/$applet ]] || ln -s busybox "$root/bin/$applet"
done
install -m 755 "$here/init" "$root/init"
program=$(basename "$1")
shift
printf '%q ' "$program" "$@" >"$root/command"
(cd "$root" && find . -print0 | cpio --quiet --null --create --format=newc -R 0:0) >"$work/initrd"

timeout "$timeout" qemu-system-x86_64 -M q35 -cpu max -smp 2 -m 1536 -nodefaults -no-user-config \
  -display none -no-reboot -serial stdio -kernel "$image/vmlinuz" -initrd "$work/initrd" \
  -append "console=ttyS0 quiet panic=-1 reboot=t no_timer_check tsc=reliable mitigations=off nokaslr \
    cryptomgr.notests" </dev/null | tr -d '\r' | tee "$work/output" || true
status=$(sed -n 's/^kernel lab: exit status //p' "$work/output" | tail -n1)
if [[ -z $status ]]; then
  echo "kernel lab: no end within $timeout s" >&2
  exit 124
fi
exit "$status"
