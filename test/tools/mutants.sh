#!/usr/bin/env bash
#
# mutants.sh: show that the tests notice when the protocol is broken.  Started
# by sandbox.sh, whose environment it needs.
#
# test/mutants.txt lists the seeded bugs: one a line, with three columns
#
#	number		n, as in ES_BUG == n in src/
#	tests		patterns for the tests that should notice, joined by commas:
#				points/NAME (test/specs/points), and isolation specs, regress
#				and TAP tests by their name
#	name		what is broken
#
# For each, the extension is built with -DES_BUG=n -DES_POINTS and its tests are
# run in a cluster of their own.  A bug is killed if one of them fails.  The
# control is bug 0, no bug, with the tests of all: there every test must pass.
# Also wanted is that src/ and the list name the same bugs.
#
#	MUTANTS		the numbers to try (all); 0 is always tried
#
# Control and bugs count as one test each; the last line is
# "N passed, N failed".
set -euo pipefail

list=test/mutants.txt
passed=0
failed=0

ok()
{
	passed=$((passed + 1))
	printf 'ok %s\n' "$*"
}

not_ok()
{
	failed=$((failed + 1))
	printf 'not ok %s\n' "$*"
}

# "number tests name" a line, without comments.
mutants()
{
	sed -E 's/#.*//; /^[[:space:]]*$/d' "$list"
}

# Build once without a bug: a mutant differs only where its number stands.
flags="-O0 -DES_POINTS"
make -s -j2 with_llvm=no COPT="$flags -DES_BUG=0" PG_CONFIG="$PG_CONFIG"

# run NUMBER TESTS: build and test; what was printed is in the log.
run()
{
	local dir=$ES_WORK/mutant

	log=$ES_WORK/log.$1
	rm -rf "$dir"
	mkdir "$dir"
	cp -a . "$dir/tree"
	grep -lE "ES_BUG [=!]= $1\b" src/*.c | sed "s|^|$dir/tree/|" | xargs -r touch
	# A mutant may wait for ever; a test that waits this long has noticed.
	(
		cd "$dir/tree"
		ES_WORK=$dir COPT="$flags -DES_BUG=$1" TESTS=${2//,/ } \
			SUITES="points isolation regress tap" \
			PG_TEST_TIMEOUT_DEFAULT=30 PGISOLATIONTIMEOUT=20 test/tools/run-tests.sh
	) >"$log" 2>&1
}

# The tests that failed, from the log.
noticed_by()
{
	sed -nE 's/^test ([^ ]+) .*(FAILED|failed).*/\1/p
		s/^not ok ([0-9]+ +[-+] +)?([^ ]+).*/\2/p' "$log" | paste -s -d ' '
}

control()
{
	local tests start=$SECONDS

	tests=$(mutants | awk '{ print $2 }' | tr ',' '\n' | sort -u | paste -s -d ,)
	if run 0 "$tests"; then
		ok "control: $(tail -n 1 "$log") ($((SECONDS - start)) s)"
	else
		not_ok "control: without a bug the tests must pass"
		sed 's/^/    /' "$log"
	fi
}

try()
{
	local number=$1 tests=$2 name=$3 start=$SECONDS by

	if run "$number" "$tests"; then
		not_ok "$number SURVIVED: $name (tests: $tests)"
		return
	fi
	by=$(noticed_by)
	if [[ -n $by ]]; then
		ok "$number killed: $name (by $by; $((SECONDS - start)) s)"
	else
		not_ok "$number: no test could tell: $name"
		tail -n 40 "$log" | sed 's/^/    /'
	fi
}

same_bugs_listed()
{
	local in_source

	in_source=$(grep -ohE 'ES_BUG [=!]= [0-9]+' -r src | awk '{ print $3 }' | sort -un | paste -s -d ' ')
	if [[ $in_source == "$(mutants | awk '{ print $1 }' | sort -n | paste -s -d ' ')" ]]; then
		ok "$list names the bugs of src"
	else
		not_ok "$list does not name the bugs of src: $in_source"
	fi
}

same_bugs_listed
control
while read -r number tests name; do
	[[ -n ${MUTANTS:-} && " $MUTANTS " != *" $number "* ]] || try "$number" "$tests" "$name" </dev/null
done < <(mutants)

printf '\n%s passed, %s failed\n' "$passed" "$failed"
[[ $failed -eq 0 ]]
