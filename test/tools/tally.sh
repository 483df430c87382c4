# tally.sh: count what passed and failed over several commands; to be sourced.
#
#	check NAME COMMAND...		one test; its output is shown if it fails
#	add_up TITLE COMMAND...		a command that prints as it goes, and counts in a
#								last line of the form "N passed, N failed"
#	tally_end					prints such a line over all; its status says the same
# shellcheck shell=bash

passed=0
failed=0
tally_log=$(mktemp)
trap 'rm -f "$tally_log"' EXIT

check()
{
	local name=$1
	shift
	if "$@" >"$tally_log" 2>&1; then
		echo "ok $name"
		passed=$((passed + 1))
	else
		echo "not ok $name"
		sed 's/^/    /' "$tally_log"
		failed=$((failed + 1))
	fi
}

# A command that says nothing of failures and yet fails counts as one, unless
# its status is 77: what it needs is not here, and it said so.
add_up()
{
	local status=0

	printf '\n== %s\n' "$1"
	shift
	"$@" 2>&1 | tee "$tally_log" || status=$?
	if [[ $(grep -E '^[0-9]+ passed, [0-9]+ failed$' "$tally_log" | tail -n 1) =~ ^([0-9]+)\ passed,\ ([0-9]+) ]]; then
		passed=$((passed + BASH_REMATCH[1]))
		failed=$((failed + BASH_REMATCH[2]))
		[[ $status -eq 0 || ${BASH_REMATCH[2]} -gt 0 ]] || failed=$((failed + 1))
	elif [[ $status -ne 77 ]]; then
		failed=$((failed + 1))
	fi
}

tally_end()
{
	printf '\n%s passed, %s failed\n' "$passed" "$failed"
	[[ $failed -eq 0 && $passed -gt 0 ]]
}
