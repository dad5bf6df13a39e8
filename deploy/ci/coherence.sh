#!/usr/bin/env bash
# The coherence check before a merge, for any CI:  coherence.sh BASE HEAD OUTPUT_FOLDER PATH [PATH...]
# PATHs are manifests, values and chain.yaml in the repository. Where the change touches none of them nothing is checked.
# HEAD is read as Git objects and never checked out; its symbolic links are dropped, for they could point anywhere.
# Writes coherence.txt and coherence.sarif. The exit code: 0 coherent or untouched, 3 incoherent, 2 bad input.
set -euo pipefail
if [ $# -lt 4 ]; then
  echo "coherence.sh: $# arguments, required BASE HEAD OUTPUT_FOLDER PATH" >&2
  exit 2
fi
base=$1 head=$2 output=$(mkdir -p "$3" && cd "$3" && pwd)
shift 3
rm -f "$output/coherence.txt" "$output/coherence.sarif"
if git diff --quiet "$base...$head" -- "$@"; then
  echo "coherence: the change touches none of $*" | tee "$output/coherence.txt"
  exit 0
fi
liftlock=${LIFTLOCK:-$(cd "$(dirname "$0")/../.." && pwd)/.venv/bin/liftlock}
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
git archive "$head" -- "$@" | tar -x -C "$tree"
find "$tree" -type l -delete
cd "$tree"
code=0
"$liftlock" coherence "$@" --sarif > "$output/coherence.sarif" || code=$?
[ "$code" = 0 ] || [ "$code" = 3 ] || exit "$code"
"$liftlock" coherence "$@" | tee "$output/coherence.txt" || true
exit "$code"
