#!/bin/sh
# Readiness of a serving container: ready when N completions in a row, short and long, met the first-token budget.
#
#   readinessProbe:
#     exec: {command: [sh, /warmup/ready.sh]}
#     periodSeconds: 2
#     timeoutSeconds: 60
#     failureThreshold: 1
#
# An engine answers /health before it has compiled and loaded an adapter; the first requests pay for that. Each call sends one
# completion of one token, so that its whole time is the time to the first token. Liveness stays on /health: a cold engine is alive.
# A container that restarts begins again, because WARM_DIR is its own; where that is a volume of the pod, a postStart hook removes it.
# Needs curl.
set -eu
model=${WARM_MODEL:?name of the model or adapter to ask for}
url=${WARM_URL:-http://127.0.0.1:8000}
needed=${WARM_REQUESTS:-4}
budget=${WARM_FIRST_TOKEN_SECONDS:-10}
prompts=${WARM_PROMPTS:?folder with short.json and long.json, each a list of messages}
dir=${WARM_DIR:-/tmp/warmup}
mkdir -p "$dir"
[ ! -e "$dir/ready" ] || exit 0
count=$(cat "$dir/count" 2>/dev/null || echo 0)
[ $((count % 2)) -eq 0 ] && which=short || which=long
body=$(printf '{"model":"%s","max_tokens":1,"temperature":0,"messages":%s}' "$model" "$(cat "$prompts/$which.json")")
key=${WARM_API_KEY:-}
[ -z "$key" ] && [ -n "${WARM_API_KEY_FILE:-}" ] && key=$(cat "$WARM_API_KEY_FILE")
code=0
umask 077
printf 'header = "content-type: application/json"\nheader = "x-liftlock-purpose: warm-up"\n' > "$dir/curlrc"
[ -z "$key" ] || printf 'header = "authorization: Bearer %s"\n' "$key" >> "$dir/curlrc"  # a key on the command line is seen by others
seen=$(curl --silent --show-error --fail --config "$dir/curlrc" --output /dev/null --write-out '%{time_total}' \
  --max-time 55 --data "$body" "$url/v1/chat/completions") || code=$?
if [ "$code" -ne 0 ]; then
  echo 0 > "$dir/count"
  echo "not ready: the completion failed (curl $code)" >&2
  exit 1
fi
if ! awk "BEGIN {exit !($seen <= $budget)}"; then
  echo 0 > "$dir/count"
  echo "not ready: first token after $seen s, required at most $budget s" >&2
  exit 1
fi
count=$((count + 1))
echo "$count" > "$dir/count"
if [ "$count" -lt "$needed" ]; then
  echo "not ready: $count of $needed completions in a row" >&2
  exit 1
fi
date -u +%Y-%m-%dT%H:%M:%SZ > "$dir/ready"
