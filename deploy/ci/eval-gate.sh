#!/usr/bin/env bash
# The eval gate before a merge, for any CI:  eval-gate.sh BASE HEAD OUTPUT_FOLDER [more options of `liftlock gate`]
# Run it from a trusted checkout of the base, with HEAD fetched and not checked out; give --fork where its author is not trusted.
# LIFTLOCK_VLLM_URL names the endpoint and LIFTLOCK_STATE the folder whose `reports` is worth keeping between runs.
# The exit code is the gate's: 0 passed, 3 rejected, 4 inconclusive, 1 something broke, 2 bad input.
set -euo pipefail
if [ $# -lt 3 ]; then
  echo "eval-gate.sh: $# arguments, required BASE HEAD OUTPUT_FOLDER" >&2
  exit 2
fi
base=$1 head=$2 output=$3
shift 3
mkdir -p "$output"
rm -f "$output/comment.md" "$output/junit.xml" "$output/report.html" "$output/gate.json"
root=$(cd "$(dirname "$0")/../.." && pwd)
code=0
"$root/.venv/bin/liftlock" gate --base "$base" --head "$head" --json --markdown "$output/comment.md" \
  --junit "$output/junit.xml" --html "$output/report.html" "$@" > "$output/gate.json" || code=$?
if [ ! -s "$output/comment.md" ]; then # nothing was judged: an older comment must not stay and look like this run's
  printf '<!-- liftlock eval gate -->\n\n### Eval gate: no verdict\n\nThe gate ended with exit code %s; see the log of the run.\n' "$code" > "$output/comment.md"
fi
exit "$code"
