#!/usr/bin/env bash
# The demo: a guest sleeps, stays present on its network and wakes, with measured figures.
#
#   scripts/demo.sh [--keep] [--rate N]     --keep: leave the lab up to play with
#   scripts/demo.sh --libvirt               the guest is a domain of libvirt, and others use virsh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if ((EUID != 0)); then
  echo "make demo needs root: it makes network namespaces and runs a guest" >&2
  exit 1
fi
scripts/deps.sh "$([[ " $* " == *' --libvirt '* ]] && echo libvirt || echo demo)"
PATH=$HOME/.cargo/bin:$PATH
cargo build --release --locked -p dormouse-daemon -p dormouse-cli -p dormouse-lab
lab/guest/build.sh >/dev/null

# However it ends, Ctrl-C and kill included, nothing stays but what was kept on purpose.
trap 'scripts/sweep.sh >/dev/null' EXIT
trap 'exit 130' INT TERM
"${CARGO_TARGET_DIR:-target}/release/dormouse-demo" "$@"
