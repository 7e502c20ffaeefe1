#!/bin/sh
# Measures `fanfold up` with wrk on the same machine, and counts what came of it.
#
# usage: loadtest/wrk/run.sh single|batch [seconds] [further arguments of `fanfold up`]
# Needs wrk (Debian: apt-get install wrk), and a release build: cargo build --release
set -eu
here=$(dirname "$0")
fanfold=${FANFOLD:-$here/../../target/release/fanfold}
what=$1 seconds=${2:-10}
shift; [ $# -eq 0 ] || shift
export ORGS="${ORGS:-1000}"
port=${PORT:-8077} url=http://127.0.0.1:${PORT:-8077}
folder=$(mktemp -d)
"$fanfold" up --listen "127.0.0.1:$port" --data "$folder/data" "$@" > "$folder/up.txt" 2>&1 &
up=$!
trap 'kill -TERM $up 2>/dev/null; wait $up 2>/dev/null || true; rm -rf "$folder"' EXIT
until curl -sf "$url/healthz" > /dev/null; do sleep 0.1; done
org=0
while [ $org -lt "$ORGS" ]; do
  echo "{\"type\":\"ledger\",\"command\":\"open\",\"id\":1,\"user\":\"teller\",\"org\":\"org$org\",\"data\":{\"account\":\"cash\"}}"
  org=$((org + 1))
done | "$fanfold" send --url "$url" - > /dev/null
wrk --threads 1 --connections "${CONNECTIONS:-64}" --duration "${seconds}s" --latency \
  --script "$here/$what.lua" "$url"
sleep 1
curl -s "$url/metrics" | grep -E '^fanfold_(backlog|syncs|checkpoints|http_commands)' || true
grep -E 'VmHWM|VmRSS' "/proc/$up/status"
awk '{ printf "cpu: user %.2f s, system %.2f s\n", $14 / 100, $15 / 100 }' "/proc/$up/stat"
[ "${COUNT:-1}" = 0 ] || python3 "$here/count.py" "$url" "$ORGS"
du -sh "$folder/data"
