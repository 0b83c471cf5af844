#!/usr/bin/env bash
# Removes the namespaces, processes and directories that labs of dead runs left behind.
#
#   scripts/sweep.sh [--kept]     --kept: also those that were kept on purpose
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

for profile in debug release; do
  lab=${CARGO_TARGET_DIR:-target}/$profile/dormouse-lab
  # Nothing built, no lab was made.
  if [[ -x $lab ]]; then exec "$lab" sweep "$@"; fi
done
