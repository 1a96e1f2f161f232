#!/bin/sh
# The Monday review with curl alone: the review itself, the state, today's ledger with its denials, the wires, the scorecards.
#
#   BASE=http://127.0.0.1:8000 TOKEN=hf_... docs/monday-review.sh
# Once there are tokens, set TOKEN to one with the scope read. Spaces and line ends around it (of a file from another system) are dropped.
#
# Exits like `holdfast review`: 0 if nothing needs attention, 1 if something does, 2 if that is unknown.
set -u
BASE=${BASE:-http://127.0.0.1:8000}
G=${BASE%/}/api/governance

# Other characters in TOKEN could add options to curl's configuration.
TOKEN=$(printf '%s' "${TOKEN:-}" | tr -d '\r' | sed -e 's/^[[:space:]]*//' -e 's/[[:space:]]*$//')
case $TOKEN in
'') ;;
*[!0-9A-Za-z_]*)
    echo "monday-review: TOKEN has other characters than letters, digits and _: set it to what holdfast token create printed" >&2
    exit 2
    ;;
hf_?*) ;;
*)
    echo "monday-review: TOKEN does not begin with hf_: set it to what holdfast token create printed" >&2
    exit 2
    ;;
esac

# curl reads the token from standard input, so no process list shows it.
header() { [ -z "${TOKEN:-}" ] || printf 'header = "Authorization: Bearer %s"\n' "$TOKEN"; }

get() { header | curl -K - -fsS --max-time 15 "$@" || {
    echo "monday-review: no usable answer from $BASE; where curl says 401 or 403, set TOKEN to a token with the scope read" >&2
    exit 2
}; }

# Prints one object of a list per line.
rows() {
    sed 's/},{/},\
{/g'
    echo
}

show() { # show TITLE PATH
    printf '%s\n' "== $1"
    text=$(get "$G/$2") || exit 2
    printf '%s' "$text" | rows
    echo
}

# The review comes first: it names anything that stops the answering instance, whatever the switches below say.
printf '%s\n' '== 1. The review'
get -H 'Accept: text/markdown' "$G/review"

show '2. Control plane: go-live and kill switch' go-live/state
show '3. Risk today: what was used, and why actions were denied' risk/ledger/today
show '4. Tripwires: which performance dropped' regression/state
show '5. Heimdall sandbox today' heimdall/scorecard/today

review=$(get -H 'Accept: application/json' "$G/review") || exit 2
case $review in
*'"look_first":[]'*) exit 0 ;;
*'"look_first":['*) exit 1 ;;
*)
    echo "monday-review: the answer of $BASE is not a review" >&2
    exit 2
    ;;
esac
