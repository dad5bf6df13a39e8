#!/usr/bin/env bash
# Put a comment on a pull request, or replace the one of an earlier run:  comment.sh OWNER/REPO NUMBER FILE
# Needs `gh` with GH_TOKEN. Only a comment that begins with the file's first line (the marker) and was written by the same user is replaced.
set -euo pipefail
repo=$1 number=$2 file=$3 author=${COMMENT_AUTHOR:-github-actions[bot]}
MARKER=$(head -n 1 "$file") AUTHOR=$author
export MARKER AUTHOR
found=$(gh api "repos/$repo/issues/$number/comments" --paginate \
  --jq '.[] | select(.user.login == env.AUTHOR and (.body | startswith(env.MARKER))) | .id' | head -n 1)
if [ -n "$found" ]; then
  gh api --method PATCH "repos/$repo/issues/comments/$found" --field "body=@$file" --silent
else
  gh api --method POST "repos/$repo/issues/$number/comments" --field "body=@$file" --silent
fi
