#!/usr/bin/env bash
# Measures Dormouse beside plain QEMU and libvirt and puts the tables into docs/performance.md.
#
#   make bench            everything, some thirty minutes; the machine should do nothing else
#   make bench QUICK=1    a few minutes: 256 MiB, three of each; docs/performance.md stays as it is
#   scripts/bench.sh ...  arguments go to dormouse-bench (see --help); it prints and writes nothing
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if ((EUID != 0)); then
  echo "make bench needs root: it makes network namespaces and runs guests" >&2
  exit 1
fi
arguments=("$@")
if ((${#arguments[@]} == 0)); then
  if [[ ${QUICK:-0} != 0 ]]; then
    arguments=(--sizes 256MiB --cycles 3)
  else
    arguments=(--write docs/performance.md)
  fi
fi
scripts/deps.sh bench
PATH=$HOME/.cargo/bin:$PATH
cargo build --release --locked -p dormouse-daemon -p dormouse-cli -p dormouse-lab -p dormouse-bench
lab/guest/build.sh >/dev/null

trap 'scripts/sweep.sh >/dev/null' EXIT
trap 'exit 130' INT TERM
"${CARGO_TARGET_DIR:-target}/release/dormouse-bench" "${arguments[@]}"
