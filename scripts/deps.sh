#!/usr/bin/env bash
# Installs what a fresh Debian 12 machine lacks for `make demo`, `make demo LIBVIRT=1`, `make test` or `make bench`.
#
#   scripts/deps.sh [demo|libvirt|test|bench]
#
# Quick and nearly silent when everything is there.
set -euo pipefail

profile=${1:-demo}
min_cargo=1.95

packages=(
  qemu-system-x86 qemu-utils      # the machines, and qemu-img for their disks
  clang libbpf-dev linux-libc-dev # the eBPF programs
  libvirt-dev                     # domains of libvirt
  gcc g++ libc6-dev binutils make pkg-config
  iproute2 iputils-ping iputils-arping openssh-client tcpdump # the lab's network and clients
  nmap                            # a scanner that must wake nobody
  dnsmasq-base udhcpc             # real DHCP, for leases kept for sleepers
  cpio curl ca-certificates util-linux                   # the guest image
)
case $profile in
  demo) ;;
  test) # firewalls, switches and responders that the tests set up; domains
    packages+=(nftables openvswitch-switch python3 libvirt-daemon-system libvirt-clients iptables) ;;
  libvirt | bench) # the demo's domain; the rival that is measured
    packages+=(libvirt-daemon-system libvirt-clients) ;;
  *)
    echo "deps: unknown argument '$profile' (expected demo, libvirt, test or bench)" >&2
    exit 2
    ;;
esac

say() { printf 'deps: %s\n' "$*" >&2; }

missing_packages() {
  local p
  for p in "${packages[@]}"; do
    [[ $(dpkg-query -W -f='${db:Status-Status}' "$p" 2>/dev/null) == installed ]] || echo "$p"
  done
}

# Runs a command that installs packages, with none of their services started: the tests start what
# they need in namespaces of their own. (invoke-rc.d(8) asks policy-rc.d.)
quietly() {
  local policy=/usr/sbin/policy-rc.d status=0
  [[ ! -e $policy ]] || { "$@"; return; }
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod 755 "$policy"
  "$@" || status=$?
  rm -f "$policy"
  return "$status"
}

install_packages() {
  local missing
  mapfile -t missing < <(missing_packages)
  ((${#missing[@]})) || return 0
  if ((EUID != 0)); then
    say "missing packages: ${missing[*]}; run this as root, or install them with apt"
    exit 1
  fi
  say "installing by apt: ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  quietly apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
  if [[ " ${missing[*]} " == *" openvswitch-switch "* ]] && command -v systemctl >/dev/null; then
    systemctl -q disable openvswitch-switch.service || true # nor at the next boot
  fi
}

check_cargo() {
  local have
  # rustup puts cargo here, which root's PATH may lack.
  [[ -d $HOME/.cargo/bin ]] && PATH=$HOME/.cargo/bin:$PATH
  if ! have=$(cargo --version 2>/dev/null | awk '{print $2}') || [[ -z $have ]]; then
    say "cargo is not installed, and Debian 12's own is too old. Install Rust with rustup:"
    say "  curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh"
    exit 1
  fi
  if [[ $(printf '%s\n%s\n' "$min_cargo" "$have" | sort -V | head -n1) != "$min_cargo" ]]; then
    say "cargo $have is too old, $min_cargo or newer is needed. With rustup: rustup update stable"
    exit 1
  fi
}

install_cargo_deny() {
  cargo deny --version >/dev/null 2>&1 && return 0
  say "installing cargo-deny (a few minutes, once)"
  cargo install --quiet --locked cargo-deny
}

install_packages
check_cargo
if [[ $profile == test ]]; then install_cargo_deny; fi
