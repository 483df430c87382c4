#!/usr/bin/env bash
#
# sqlsmith.sh: random statements of sqlsmith beside writers and workers, judged
# by the server's log.  Started by sandbox.sh, whose environment it needs.
#
# A reader, a writer, an admin and a superuser each send statements that are
# rolled back; an admin and a superuser send others that are not.  What they can
# call is in test/fuzz/sqlsmith.sql.  Errors are what is expected; wanted is
#
#	no process ended by a signal, no failed assertion, no panic
#	no internal error (SQLSTATE XX...)
#	a sound store at the end: es_check() finds nothing
#
#	SQLSMITH_SECONDS	for how long (3600)
#	RESULTS_LOG			where to copy the server's log, if anywhere
#
# The last line is "N passed, N failed"; the status is 77 without sqlsmith.
set -euo pipefail

seconds=${SQLSMITH_SECONDS:-3600}
if ! command -v sqlsmith >/dev/null; then
	echo "There is no sqlsmith here (Debian: apt-get install sqlsmith)."
	exit 77
fi
make -s -j2 with_llvm=no install PG_CONFIG="$PG_CONFIG"

# shellcheck source=test/tools/server.sh
source test/tools/server.sh
server_settings+="
shared_preload_libraries = 'eventstore'
log_error_verbosity = verbose
log_line_prefix = '%m [%p] %e %u '
"
server_start
export PGDATABASE=postgres
psql -Xq -f test/fuzz/sqlsmith.sql >/dev/null
log=$ES_WORK/server/server.log
end=$((SECONDS + seconds))

# The arguments come from "host=... user=..." and end with the time.
smith()
{
	nice -n 5 timeout "$((end - SECONDS > 300 ? 300 : end - SECONDS))" \
		sqlsmith --target="host=$PGHOST user=smith_$1 dbname=postgres" \
		--exclude-catalog --seed="$RANDOM" "${@:2}" 2>/dev/null
}

rolled_back()
{
	while ((SECONDS < end)); do
		smith "$1" >/dev/null || sleep 1
	done
}

committed()
{
	while ((SECONDS < end)); do
		smith "$1" --dry-run | PGUSER=smith_$1 PGOPTIONS='-c statement_timeout=2s' psql -Xq >/dev/null 2>&1 || sleep 1
	done
}

echo "SELECT es_append('w-' || (random() * 50)::int, 'A', '{\"n\": 1, \"word\": \"x\"}')" >"$ES_WORK/writers.sql"
pgbench -n -c 4 -R 40 -T "$seconds" --max-tries=100 -f "$ES_WORK/writers.sql" >/dev/null 2>"$ES_WORK/writers.err" &
for role in reader writer admin root; do
	rolled_back "$role" &
done
for role in admin root; do
	committed "$role" &
done
wait

passed=0
failed=0
judge()
{
	if [[ -z $2 ]]; then
		echo "ok $1"
		passed=$((passed + 1))
	else
		echo "not ok $1"
		head -n 20 <<<"$2" | cut -c 1-300 | sed 's/^/    /'
		failed=$((failed + 1))
	fi
}

lines()
{
	grep -aE -A 3 "$1" "$log" || true
}

echo "$(grep -acE '^.{26,40} \[[0-9]+\] [0-9A-Z]{5} smith_[a-z]+ ERROR' "$log" || true) statements refused; by SQLSTATE:"
grep -aoE '\] [0-9A-Z]{5} smith_[a-z]+ ERROR' "$log" | awk '{ print $2 }' | sort | uniq -c | sort -rn | head -n 40 | paste -s -d ' ' || true
judge "no signal, no assertion, no panic" "$(lines 'TRAP:|terminated by signal|PANIC:')"
judge "no internal error" "$(lines '^[^ ]+ [^ ]+ [^ ]+ \[[0-9]+\] XX')"
judge "the store is sound" "$(psql -XAt -c "SELECT * FROM es_check() WHERE status = 'error' AND check_name NOT IN ('projections', 'parked events')" 2>&1)"
[[ -z ${RESULTS_LOG:-} ]] || cp "$log" "$RESULTS_LOG"
server_stop
printf '\n%s passed, %s failed\n' "$passed" "$failed"
[[ $failed -eq 0 ]]
