#!/usr/bin/env bash
#
# run-tests.sh: build the extension, run its tests, count them.  Started by
# sandbox.sh, whose environment it needs.
#
#	SUITES		which suites, of: regress isolation examples readme tap, and points:
#				the isolation specs that need a build with COPT=-DES_POINTS
#	TESTS		which tests, by name or shell pattern ("append", "append*")
#	JOBS		how many TAP tests at a time (2)
#	RESULTS		a directory that is to receive what regress and isolation tests
#				printed (NAME.out), to become expected output after a look
#
# What counts as one test: a regress test, an isolation spec, an example, an SQL
# block of the README, and each check ("ok") of a TAP test.  A suite that dies
# before it could say how a test went counts that test as failed.  The last
# line is "N passed, N failed"; the exit status is 0 if some test ran and none
# failed.
set -euo pipefail

SUITES=${SUITES:-regress isolation examples readme tap}
TESTS=${TESTS:-*}
JOBS=${JOBS:-2}

# A suite that hangs is a failure too.  A server that is slowed down on purpose
# may take its time (ES_PATIENCE, a factor).
suite_seconds=$((1200 * ${ES_PATIENCE:-1}))
tap_seconds=$((600 * ${ES_PATIENCE:-1}))

passed=0
failed=0
logs=$ES_WORK/logs
mkdir "$logs"
# shellcheck source=test/tools/server.sh
source test/tools/server.sh

# Whatever ended this script, the last line says how it went; an end before all
# suites were through is a failure.
complete=
finish()
{
	[[ -n $complete ]] || failed=$((failed + 1))
	[[ $passed -gt 0 || $failed -gt 0 ]] || echo "No test was run."
	printf '\n%s passed, %s failed\n' "$passed" "$failed"
	[[ $failed -eq 0 && $passed -gt 0 ]] || exit 1
}
trap finish EXIT

heading()
{
	printf '\n== %s\n' "$*"
}

# show FILE LINES: the end of a file, indented.
show()
{
	[[ ! -s $1 ]] || tail -n "$2" "$1" | sed 's/^/    /'
}

# wanted NAME...: those that TESTS asks for.
wanted()
{
	local name pattern

	# TESTS holds patterns for names, not for files.
	set -f
	for name in "$@"; do
		for pattern in $TESTS; do
			# shellcheck disable=SC2053
			if [[ $name == $pattern ]]; then
				echo "$name"
				break
			fi
		done
	done
	set +f
}

build()
{
	if ! make -s -j2 with_llvm=no install PG_CONFIG="$PG_CONFIG" >"$logs/build" 2>&1; then
		cat "$logs/build"
		echo "The extension does not build."
		exit 1
	fi
	grep -i 'warning' "$logs/build" || true
}

# pg_regress_suite PROGRAM TEST...: run pg_regress or pg_isolation_regress.
# Both print a line a test: "test NAME ... ok" up to 15, "ok N - NAME" later.
pg_regress_suite()
{
	local program=$1 log=$logs/${1##*/} name ok status=0
	shift

	mkdir -p expected/points results/points
	# Without an expected file the program would stop at the first such test.
	for name in "$@"; do
		[[ -e expected/$name.out || -e expected/${name}_1.out ]] || : >"expected/$name.out"
	done
	timeout --foreground "$suite_seconds" "$program" --bindir="$(dirname "$PG_CONFIG")" \
		--inputdir=test --host="$PGHOST" --user="$PGUSER" \
		--dbname=contrib_regression "$@" >"$log" 2>&1 || status=$?
	grep -E '^(test |ok |not ok )' "$log" || true

	ok=$(grep -cE '^test .* \.\.\. +ok( |$)|^ok ' "$log" || true)
	passed=$((passed + ok))
	if [[ $ok -lt $# || $status -ne 0 ]]; then
		failed=$((failed + ($# > ok ? $# - ok : 1)))
		echo "exit status $status; what was printed, and the differences:"
		show "$log" 15
		head -n 400 regression.diffs 2>/dev/null | sed 's/^/    /'
		[[ -s regression.diffs ]] || show "$ES_WORK/server/server.log" 30
	fi
	rm -f regression.diffs
}

# program NAME: the path of a test driver in PostgreSQL's PGXS directory.
program()
{
	echo "$("$PG_CONFIG" --pkglibdir)/pgxs/src/test/$1"
}

suite_regress()
{
	pg_regress_suite "$(program regress/pg_regress)" "$@"
}

suite_isolation()
{
	pg_regress_suite "$(program isolation/pg_isolation_regress)" "$@"
}

suite_points()
{
	suite_isolation "$@"
}

# An example is right if it runs without an error in a new database, and prints
# what expected/examples holds for it, if that holds anything.
suite_examples()
{
	local name log expected

	for name in "$@"; do
		log=$logs/$name
		expected=expected/examples/${name%.*}.out
		createdb "$name"
		if run_example "$name" >"$log" 2>&1 &&
			{ [[ ! -e $expected ]] || diff -u "$expected" "$log" >"$log.diff"; }; then
			echo "ok $name"
			passed=$((passed + 1))
		else
			echo "not ok $name"
			show "$log" 30
			[[ ! -e $log.diff ]] || show "$log.diff" 100
			failed=$((failed + 1))
		fi
	done
}

# A script takes this project's own history as its argument.
run_example()
{
	case $1 in
		*.sql) psql -X -d "$1" -v ON_ERROR_STOP=1 -f "test/examples/$1" </dev/null ;;
		*.sh) PGDATABASE=$1 bash "test/examples/$1" "${ES_GIT_REPO:-}" </dev/null ;;
	esac
}

suite_readme()
{
	local log=$logs/readme status=0

	test/tools/readme-sql.sh README.md >"$log" 2>&1 || status=$?
	cat "$log"
	count_tap "$log" "$status"
}

# count_tap LOG EXIT-STATUS: add the checks of one TAP test to the counters;
# those marked SKIP or TODO say nothing.  A test that fails otherwise counts one.
count_tap()
{
	local ok not_ok

	ok=$(grep -E '^ok ' "$1" | grep -cvE '# (SKIP|skip|TODO)' || true)
	not_ok=$(grep -E '^not ok ' "$1" | grep -cv '# TODO' || true)
	[[ $2 -eq 0 || $not_ok -gt 0 ]] || not_ok=1
	passed=$((passed + ok))
	failed=$((failed + not_ok))
	checks=$ok
}

run_tap()
{
	local name=$1 perl pkglibdir

	pkglibdir=$("$PG_CONFIG" --pkglibdir)
	perl=$pkglibdir/pgxs/src/test/perl
	export PG_REGRESS=$pkglibdir/pgxs/src/test/regress/pg_regress
	export TESTDIR=$PWD TESTDATADIR=$PWD/tmp_check TESTLOGDIR=$PWD/tmp_check/log
	local status=0 start=$SECONDS
	LD_PRELOAD=${ES_PRELOAD:-} timeout --foreground "$tap_seconds" \
		prove -v -I "$perl" -I test/t "test/t/$name.pl" >"$logs/$name" 2>&1 || status=$?
	echo "$status $((SECONDS - start))" >"$logs/$name.status"
}

# One file may take long and mostly waits, so JOBS of them run side by side.
suite_tap()
{
	local name status seconds

	mkdir -p tmp_check/log
	export -f run_tap
	export logs tap_seconds
	printf '%s\0' "$@" | xargs -0 -P "$JOBS" -I NAME bash -c 'run_tap NAME' || true
	for name in "$@"; do
		status=1
		seconds=0
		[[ ! -e $logs/$name.status ]] || read -r status seconds <"$logs/$name.status"
		count_tap "$logs/$name" "$status"
		if [[ $status -eq 0 ]]; then
			echo "ok $name ($checks checks, $seconds s)"
			grep -hiE '# skip|skipped:|^# counted: ' "$logs/$name" | sed 's/^/    /' || true
		else
			echo "not ok $name (exit status $status, $seconds s)"
			grep -A 12 '^not ok' "$logs/$name" | sed 's/^/    /' || true
			echo "  the end of its output, and of its log:"
			show "$logs/$name" 25
			show "tmp_check/log/regress_log_$name" 40
		fi
	done
}

# names_of FILE...: their names without the directories, of those that exist.
names_of()
{
	local file

	for file in "$@"; do
		[[ ! -e $file ]] || echo "${file##*/}"
	done
}

# A crash of the server is a failure of its own, whatever the tests made of it:
# any of the common server, and a failed assertion of a TAP test's.  So is what
# a sanitizer or valgrind has to say.
look_for_crashes()
{
	local crashes=$logs/crashes words='TRAP:|runtime error:|ERROR: AddressSanitizer'

	{
		grep -E "$words|PANIC:|was terminated by signal" "$ES_WORK/server/server.log" || true
		grep -E "$words" -r tmp_check/log 2>/dev/null || true
		cat "$ES_WORK"/valgrind/* 2>/dev/null || true
	} >"$crashes"
	[[ -s $crashes ]] || return 0
	heading "servers crashed, or did what they must not"
	head -n 200 "$crashes" | sed 's/^/    /'
	failed=$((failed + 1))
}

# The tests of a suite, by name.
list()
{
	case $1 in
		regress) make -s print-REGRESS PG_CONFIG="$PG_CONFIG" ;;
		isolation) make -s print-ISOLATION PG_CONFIG="$PG_CONFIG" ;;
		points) make -s print-POINTS PG_CONFIG="$PG_CONFIG" ;;
		# a script wants a history, which a copy of the tree may lack
		examples) names_of test/examples/*.sql ${ES_GIT_REPO:+test/examples/*.sh} ;;
		readme) names_of README.md ;;
		tap) names_of test/t/*.pl | sed 's/\.pl$//' ;;
		*)
			echo "no suite is called $1" >&2
			return 1
			;;
	esac
}

heading "$("$PG_CONFIG" --version), $("$(dirname "$PG_CONFIG")/psql" --version | sed 's/.*(/(/')"
build
if ! server_start; then
	echo "The server does not start."
	exit 1
fi
for suite in $SUITES; do
	names=$(list "$suite")
	# shellcheck disable=SC2086
	mapfile -t tests < <(wanted $names)
	[[ ${#tests[@]} -gt 0 ]] || continue
	heading "$suite: ${#tests[@]}"
	"suite_$suite" "${tests[@]}"
done
server_stop
look_for_crashes
complete=yes
