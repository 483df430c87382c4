#!/usr/bin/env bash
#
# reliability.sh: the long forms of the tests that do damage, and a table of
# what came of it.  Started by sandbox.sh, whose environment it needs.
#
#	SCENARIOS	which of test/reliability.txt, by test or name, or shell pattern (all)
#	RESULTS		a directory that is to receive the table (reliability.md) and
#				what each test printed (TEST.log)
#
# The table's last columns are the figures that the tests report.  The exit
# status is 0 if every test passed and nothing was lost, doubled or reordered.
set -euo pipefail

list=test/reliability.txt
results=results/reliability
table=$results/reliability.md
built=
failed=0

# Lines "scenario|test|environment|load", without comments and blanks around.
scenarios()
{
	sed -E 's/#.*//; /^[[:space:]]*$/d; s/[[:space:]]*\|[[:space:]]*/|/g' "$list"
}

# wanted SCENARIO TEST
wanted()
{
	local pattern

	set -f
	for pattern in ${SCENARIOS:-*}; do
		# shellcheck disable=SC2053
		[[ $1 != $pattern && ${2##*/} != $pattern ]] || return 0
	done
	return 1
}

# build FLAGS: install the extension, anew if it was built otherwise.
build()
{
	[[ $built != "flags$1" ]] || return 0
	touch src/*.c
	make -s -j2 with_llvm=no COPT="$1" install PG_CONFIG="$PG_CONFIG" >"$results/build.log" 2>&1 || {
		cat "$results/build.log"
		return 1
	}
	built=flags$1
}

# run TEST ENVIRONMENT: with what it prints in its log.
run()
{
	local pkglibdir

	pkglibdir=$("$PG_CONFIG" --pkglibdir)
	# shellcheck disable=SC2086
	env $2 PG_TEST_TIMEOUT_DEFAULT=900 PATH="$("$PG_CONFIG" --bindir):$PATH" \
		PG_REGRESS="$pkglibdir/pgxs/src/test/regress/pg_regress" \
		TESTDIR="$PWD" TESTDATADIR="$PWD/tmp_check" TESTLOGDIR="$PWD/tmp_check/log" \
		timeout --foreground 7200 prove -v -I "$pkglibdir/pgxs/src/test/perl" -I test/t \
		"test/t/$1.pl" >"$results/${1##*/}.log" 2>&1
}

# The sum of one of the figures in a log.
figure()
{
	grep -E '^# figures: ' "$2" | grep -oE "\b$1=[0-9]+" | awk -F= '{ n += $2 } END { print n + 0 }'
}

# row SCENARIO TEST LOAD STATUS
row()
{
	local log=$results/${2##*/}.log figures name

	if grep -qE '^1\.\.0 # SKIP|skipped:' "$log"; then
		printf '| %s | %s | not run here | | | | `%s` |\n' "$1" "$3" "${2##*/}"
		return
	fi
	if ! grep -q '^# figures: ' "$log"; then
		figures='? | ? | ? | ?'
		failed=1
	else
		figures=$(figure faults "$log")
		for name in lost doubled reordered; do
			figures+=" | $(figure $name "$log")"
			[[ $(figure $name "$log") -eq 0 ]] || failed=1
		done
	fi
	if [[ $4 -ne 0 ]]; then
		figures+=' **FAILED**'
		failed=1
	fi
	# shellcheck disable=SC2016
	printf '| %s | %s | %s | `%s` |\n' "$1" "$3" "$figures" "${2##*/}"
}

mkdir -p "$results" tmp_check/log
printf '| scenario | load and faults | faults survived | lost | doubled | reordered | test |\n|---|---|---|---|---|---|---|\n' >"$table"
while IFS='|' read -r scenario test environment load; do
	wanted "$scenario" "$test" || continue
	flags=
	[[ " $environment " != *" POINTS=yes "* ]] || flags=-DES_POINTS
	build "$flags"
	start=$SECONDS
	status=0
	run "$test" "${environment#-}" || status=$?
	row "$scenario" "$test" "$load" "$status" >"$results/row"
	cat "$results/row" >>"$table"
	printf '\n== %s (%s s)\n' "$scenario" "$((SECONDS - start))"
	grep -E '^# [a-zA-Z]' "$results/${test##*/}.log" | grep -vE '^# (connect output|Looks like)' | tail -n 40 || true
	[[ $status -eq 0 ]] || grep -E -A 8 '^not ok|Result|Dubious' "$results/${test##*/}.log" | head -n 60
	rm -rf tmp_check/t_* "$results/row"
done < <(scenarios)
rm -f "$results/build.log"
printf '\n'
cat "$table"
exit "$failed"
