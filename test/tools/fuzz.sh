#!/usr/bin/env bash
#
# fuzz.sh: made-up input for every parser that SQL reaches (test/fuzz/parsers.sql).
# Started by sandbox.sh, whose environment it needs.
#
#	FUZZ_SECONDS	for each target (60)
#	FUZZ_SEED		from -1 to 1; without it another each time, and printed
#
# The last line is "N passed, N failed".
set -euo pipefail

make -s -j2 with_llvm=no install PG_CONFIG="$PG_CONFIG"
# shellcheck source=test/tools/server.sh
source test/tools/server.sh
server_start
seed=${FUZZ_SEED:-0.$RANDOM}
out=$ES_WORK/fuzz.out
status=0
echo "seed $seed"
psql -X -d postgres -qAt -v seconds="${FUZZ_SECONDS:-60}" -v seed="$seed" -f test/fuzz/parsers.sql >"$out" 2>&1 || status=$?
grep -vE 'ERROR:  [0-9A-WYZ]' "$out" || true
echo "options of the plugin: $(grep -cE 'ERROR:  ' "$out" || true) refused"
server_stop
if [[ $status -ne 0 ]] || grep -qE 'FINDING|ERROR:  XX|lost|terminated' "$out" || grep -qE 'TRAP:|terminated by signal' "$ES_WORK/server/server.log"; then
	tail -n 30 "$ES_WORK/server/server.log"
	printf '\n0 passed, 1 failed\n'
	exit 1
fi
printf '\n1 passed, 0 failed\n'
