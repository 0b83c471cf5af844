#!/usr/bin/env bash
# Builds the fuzz targets and runs each one in turn; one line for each. Exit status 1 if one failed.
#
#   scripts/fuzz.sh [SECONDS [TARGET...]]      300 seconds, all targets
#
# What is found goes to fuzz/artifacts, and what is learned to fuzz/corpus; `fuzz` is a cargo-fuzz
# directory, but needs neither that nor a nightly compiler: the coverage that libFuzzer goes by is
# made by flags of the stable one.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../fuzz"

seconds=${1:-300}
shift || true
host=$(rustc -vV | awk '/^host:/ {print $2}')
target_dir=${CARGO_TARGET_DIR:-target}/fuzz
export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-never}
# As cargo-fuzz has them. `fuzzing` lets smoltcp take every checksum for right.
flags="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table
  -Cllvm-args=-sanitizer-coverage-trace-compares"

# With --target the flags do not reach build scripts and procedural macros. Not --locked: the lock file
# is one of its own, and follows the dependencies of the crates under test.
RUSTFLAGS=$flags CARGO_TARGET_DIR=$target_dir \
  cargo build --quiet --release --target "$host" --bins
bin=$target_dir/$host/release
# The targets, and `seeds`, which is none.
if (($# == 0)); then
  mapfile -t all < <(basename -s .rs fuzz_targets/*.rs)
  set -- "${all[@]}"
fi
"$bin/seeds" "$target_dir/seeds"

failures=0
for target in "$@"; do
  mkdir -p "corpus/$target" "artifacts/$target"
  log=$target_dir/$target.log result=ok
  # One input at a time: five seconds and 512 MiB are far more than any of them needs.
  "$bin/$target" -max_total_time="$seconds" -timeout=5 -rss_limit_mb=512 -max_len=4096 \
    -artifact_prefix="artifacts/$target/" "corpus/$target" "$target_dir/seeds/$target" \
    >"$log" 2>&1 </dev/null || result=FAILED
  runs=$(awk '/^Done / {print $2} /^stat::number_of_executed_units:/ {print $2}' "$log" | tail -1)
  printf '%-10s %12s runs  %s\n' "$target" "${runs:-?}" "$result"
  if [[ $result == FAILED ]]; then
    failures=$((failures + 1))
    tail -n 30 "$log"
  fi
done
((failures == 0))
