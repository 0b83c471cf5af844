#!/usr/bin/env bash
# Measures the policies on traces, each by itself, and writes what comes of it into docs/policies.md and its pictures.
#
#   scripts/policies.sh TRACE.csv...      a day each; the last four digits of a name are month and day
set -euo pipefail
(($#)) || { echo "no trace is named; try: make simulate TRACE='20110303.csv 20110403.csv'" >&2; exit 1; }
traces=()
for trace; do
  [[ -r $trace ]] || { echo "cannot read the trace $trace" >&2; exit 1; }
  traces+=("$(realpath "$trace")")
done
cd "$(dirname "${BASH_SOURCE[0]}")/.."

doc=docs/policies.md
costs=5m,10m,15m,17m,20m,25m,30m,1h
afters=5m,10m,15m,20m,30m,1h
cargo build --release --quiet --locked -p dormouse-cli
dormouse() { "${CARGO_TARGET_DIR:-target}/release/dormouse" "$@"; }
day() { local name=${1##*/}; name=${name%.csv}; echo "${name: -4:2}-${name: -2}"; }

# Rows of CSV as `| day | policy | share | hits | wakes | ahead | in vain | wasted |`.
rows() {
  awk -F , -v day="$1" 'NR > 1 && $1 !~ /^(oracle|always-on)/ {
    gsub("\r", "")
    printf "| %s | %s | %.1f %% | %d | %d | %d | %d | %.0f |\n", day, $1, $3, $5, $4, $6, $7, $8
    day = ""}'
}

# Share and hits of each policy in one line.
pairs() { awk -F , 'NR > 1 && $1 !~ /^(oracle|always-on)/ {printf " %.1f %%, %d |", $3, $5}'; }

measured() {
  printf '\n| day | policy | asleep, of the oracle | user hits | wakes | ahead | in vain | wasted h |\n|---|---|---|---|---|---|---|---|\n'
  for trace in "${traces[@]}"; do dormouse simulate "$trace" -o csv | rows "$(day "$trace")"; done

  printf '\nOver `wake_cost`, hours asleep of the oracle'\''s and user hits; for each day beside `fixed` at 15m:\n\n| day | `fixed` |'
  for cost in ${costs//,/ }; do printf ' %s |' "$cost"; done
  printf '\n|---|---|'
  for cost in ${costs//,/ }; do printf -- '---|'; done
  echo
  for trace in "${traces[@]}"; do
    printf '| %s |' "$(day "$trace")"
    dormouse simulate "$trace" -o csv --policy fixed --policy predictive --set wake_cost="$costs" | pairs
    echo
  done

  printf '\nOver the use that counts, `--cpu-below`, `fixed` and then `predictive`:\n\n| day | policy |'
  for percent in 2 5 10 20 40; do printf ' %s %% |' $percent; done
  printf '\n|---|---|---|---|---|---|---|\n'
  for trace in "${traces[@]}"; do
    for policy in fixed predictive; do
      printf '| %s | %s |' "$(day "$trace")" $policy
      for percent in 2 5 10 20 40; do
        dormouse simulate "$trace" -o csv --policy $policy --cpu-below $percent | pairs
      done
      echo
    done
  done

  echo
  for trace in "${traces[@]}"; do
    picture=policies-$(day "$trace").svg
    dormouse simulate "$trace" --set idle_after=$afters --set wake_cost=$costs --svg "docs/$picture" >/dev/null
    printf '![%s: hours asleep against user hits, each policy over its parameter, and the day of some machines](%s)\n' "$(day "$trace")" "$picture"
  done
  echo
}

grep -q '^<!-- measured -->$' $doc && grep -q '^<!-- /measured -->$' $doc || {
  echo "$doc has no place for what is measured" >&2
  exit 1
}
new=$(mktemp)
trap 'rm -f "$new"' EXIT
{
  sed '/^<!-- measured -->$/q' $doc
  measured
  sed -n '/^<!-- \/measured -->$/,$p' $doc
} >"$new"
cat "$new" >$doc
echo "$doc and its pictures are written"
