#!/usr/bin/env bash
# All tests, in order, each step to the end; one summary. Exit status 1 if anything failed.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

target=${CARGO_TARGET_DIR:-target}
logs=$target/test-logs
rows=() failures=0
export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-never}

if ((EUID != 0)); then
  echo "make test needs root: it makes network namespaces and runs guests" >&2
  exit 1
fi
mkdir -p "$logs"
rm -f "$logs"/*.log

# step NAME COMMAND...: runs it with its output in a log, and notes time and result.
step() {
  local name=$1 log=$logs/${1// /-}.log start=$EPOCHREALTIME result=ok took
  shift
  printf '%-22s ' "$name"
  "$@" >"$log" 2>&1 </dev/null || result=FAILED
  took=$(awk -v a="$start" -v b="$EPOCHREALTIME" 'BEGIN {printf "%.1f s", b - a}')
  if [[ $result == FAILED ]]; then
    failures=$((failures + 1))
  elif [[ -s $logs/note ]]; then
    result=$(<"$logs/note")
  fi
  rm -f "$logs/note"
  rows+=("$(printf '%-22s %10s  %s' "$name" "$took" "$result")")
  printf '%10s  %s\n' "$took" "$result"
  if [[ $result == FAILED ]]; then
    printf '%s\n' "--- the end of $log" "$(tail -n 60 "$log")" "---"
  fi
}

# The advisory database is fetched from the network, which a build machine may not reach.
advisories() {
  cargo deny --locked check advisories && return 0
  if ! grep -qE 'failed to (fetch|load|open|clone|acquire)' "$logs/advisories.log"; then return 1; fi
  echo 'not checked: the advisory database was not reachable' >"$logs/note"
}

tests_of() { # cargo test with every failure shown, whatever the build step made
  cargo test --locked --no-fail-fast "$@"
}

count() { # passed|failed, over every `test result:` line
  cat "$logs"/*.log 2>/dev/null |
    awk -v what="$1" '/^test result: / {for (i = 2; i <= NF; i++) if ($i ~ "^" what) n += $(i - 1)} END {print n + 0}'
}

# Each failed test by name, and where and why; who reads the end of a long log must not have to search.
told_failures() {
  grep -hE '^test .* \.\.\. FAILED' "$logs"/*.log
  grep -hE -A4 "^thread '.*panicked at|minimal failing input" "$logs"/{unit-and-property,end-to-end}.log |
    grep -vE 'stack backtrace|^ +[0-9]+: |^--$' | cut -c 1-1000 | head -n 40
}

cleanup() { scripts/sweep.sh >/dev/null; }
trap cleanup EXIT
trap 'exit 130' INT TERM

step 'dependencies' scripts/deps.sh test
PATH=$HOME/.cargo/bin:$PATH
step 'format' cargo fmt --all --check
step 'clippy' cargo clippy --locked --workspace --all-targets --quiet -- -D warnings
step 'licences' cargo deny --locked check licenses bans sources
step 'advisories' advisories
step 'build' cargo build --locked --workspace --bins
step 'guest image' lab/guest/build.sh
step 'unit and property' tests_of --workspace --exclude dormouse-e2e
# Long enough to see that all targets run; what takes longer to find is looked for by `make fuzz`.
step 'fuzz' scripts/fuzz.sh 3
# Guests run emulated: more at once than processors would only time out.
step 'end to end' tests_of -p dormouse-e2e -- --test-threads="$(nproc)"
step 'clean-up' scripts/sweep.sh

printf '\n%-22s %10s  %s\n' step time result
printf '%s\n' "${rows[@]}"
printf '\n%s steps failed; logs in %s\n' "$failures" "$logs"
failed=$(count failed)
((failed == 0)) || told_failures
printf '%s passed, %s failed\n' "$(count passed)" "$failed"
((failures == 0 && failed == 0))
