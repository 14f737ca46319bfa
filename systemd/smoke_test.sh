#!/usr/bin/env bash
# Does the installed service work? Health of both, one experiment, its status until it ends. Prints what it saw.
#
#   systemd/smoke_test.sh [ORCHESTRATOR_URL [WORKER_URL]]      (http://127.0.0.1:8081  http://127.0.0.1:8080)
#
#   SMOKE_EXPERIMENT   the experiment (default {}: the default experiment)
#   SMOKE_TIMEOUT_S    how long it may take (300)
#   NVC_KEY_FILE       a file with the key to show, where keys are in use
#   NVC_CA             certificates that theirs are checked against, for https
#   NVC_CLIENT_CERT, NVC_CLIENT_KEY   a certificate to show, where one is asked for
#
# Exit codes: 0 it works; 1 it does not, and the last line says what; 2 wrong usage.
set -euo pipefail

if [[ ${1:-} == -h || ${1:-} == --help ]]; then
    sed -n '2,/^set /{/^set /!s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
    exit 0
fi
(($# <= 2)) || { echo "smoke_test.sh: at most two addresses were expected; see --help" >&2; exit 2; }
orchestrator=${1:-http://127.0.0.1:8081}
worker=${2:-http://127.0.0.1:8080}
experiment=${SMOKE_EXPERIMENT:-"{}"}
timeout_s=${SMOKE_TIMEOUT_S:-300}

fail() { echo "FAILED: $*"; exit 1; }
command -v curl > /dev/null || fail "curl is not installed"

options=(--silent --show-error --connect-timeout 5 --max-time 30)
[[ -z ${NVC_CA:-} ]] || options+=(--cacert "$NVC_CA")
[[ -z ${NVC_CLIENT_CERT:-} ]] || options+=(--cert "$NVC_CLIENT_CERT" --key "${NVC_CLIENT_KEY:?is missing}")
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
if [[ -n ${NVC_KEY_FILE:-} ]]; then # in a file, so that the key is on no command line
    printf 'header = "Authorization: Bearer %s"\n' "$(tr -d '[:space:]' < "$NVC_KEY_FILE")" > "$scratch/key"
    chmod 0600 "$scratch/key"
    options+=(--config "$scratch/key")
fi

call() { # METHOD URL [BODY]: the answer's body is in $body, its status in $code
    local arguments=(--request "$1" --output "$scratch/body" --write-out '%{http_code}')
    [[ -z ${3:-} ]] || arguments+=(--header 'Content-Type: application/json' --data "$3")
    code=$(curl "${options[@]}" "${arguments[@]}" "$2" 2> "$scratch/error") || code=000
    body=$(cat "$scratch/body" 2> /dev/null || true)
    [[ $code != 000 ]] || body=$(cat "$scratch/error")
}
value() { # NAME: the first value of that name in $body, without quotes
    grep --only-matching --max-count=1 "\"$1\": *\(\"[^\"]*\"\|[^,}]*\)" <<< "$body" | head -n 1 |
        sed 's/^"[^"]*": *//; s/^"//; s/"$//' || true
}

echo "1. health"
for url in "$orchestrator" "$worker"; do
    call GET "$url/health"
    echo "   $url/health: $code ${body:0:300}"
    [[ $code == 200 ]] || fail "$url is not healthy"
done

echo "2. one experiment: $experiment"
call POST "$orchestrator/experiment" "$experiment"
echo "   POST $orchestrator/experiment: $code ${body:0:300}"
[[ $code == 202 ]] || fail "the experiment was not accepted"
id=$(value experiment_id)
[[ -n $id ]] || fail "the answer holds no experiment_id"

echo "3. its status until it ends"
began=$SECONDS seen=""
while true; do
    call GET "$orchestrator/experiment/$id/status"
    [[ $code == 200 ]] || fail "GET /experiment/$id/status: $code ${body:0:300}"
    status=$(value status)
    [[ $status == "$seen" ]] || echo "   $((SECONDS - began)) s: $status"
    seen=$status
    case $status in completed | failed | cancelled) break ;; esac
    ((SECONDS - began < timeout_s)) || fail "$id is still $status after $timeout_s s"
    sleep 0.5
done
[[ $status == completed ]] || fail "$id is $status: ${body:0:1000}"
for name in bitrate_mbps compression_ratio psnr_db ssim matches_encoder encode_s decode_s; do
    echo "   $name $(value "$name")"
done
[[ $(value matches_encoder) == true ]] || fail "decoder and encoder disagree about the pictures"

echo "4. its stream"
address=$(value compressed_data)
code=$(curl "${options[@]}" --output "$scratch/stream" --write-out '%{http_code}' "$orchestrator$address") || code=000
[[ $code == 200 ]] || fail "GET $address: $code"
size=$(wc -c < "$scratch/stream")
echo "   GET $address: $size bytes"
[[ $size -eq $(value bytes) ]] || fail "the stream has $size bytes, the result says $(value bytes)"

echo "PASSED: $id completed in $((SECONDS - began)) s"
