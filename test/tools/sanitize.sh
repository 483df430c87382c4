#!/usr/bin/env bash
#
# sanitize.sh [CHECK...]: the tests on a server that watches itself (see
# checked-postgres.sh), which finds what a test that passes does not show.
#
#	assertions	all suites, with PostgreSQL's assertions
#	caches		regress, with every cache entry thrown away at each chance
#	memcheck	regress under valgrind: memory not owned or not set
#	undefined	all suites, the extension with gcc's -fsanitize=undefined
#	address		all suites, the extension with -fsanitize=address
#
# SUITES, TESTS and JOBS as for make test.  The last line is "N passed, N
# failed"; the status is 77 where no such server can be made.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
exec </dev/null
# shellcheck source=test/tools/tally.sh
source test/tools/tally.sh

checks=("${@:-all}")
[[ $# -gt 0 ]] || checks=(assertions caches memcheck undefined address)
all="regress isolation examples readme tap"
PG_CONFIG=$(test/tools/checked-postgres.sh)
export PG_CONFIG

# tests SUITES [VARIABLE=VALUE...]
tests()
{
	local suites=${SUITES:-$1}
	shift
	add_up "$check, $("$PG_CONFIG" --version)" \
		env SUITES="$suites" "$@" make --no-print-directory test
}

check_assertions()
{
	tests "$all"
	[[ -n ${SUITES:-} ]] || tests points COPT="-DES_POINTS -DES_BUG=0"
}

# Slower by two orders of magnitude.
check_caches()
{
	tests regress ES_SETTINGS="debug_discard_caches = 1" ES_PATIENCE=5
}

check_memcheck()
{
	tests regress ES_POSTGRES=test/tools/valgrind-postgres.sh ES_PATIENCE=5
}

check_undefined()
{
	tests "$all" COPT="-fsanitize=undefined -fno-sanitize-recover=all" \
		UBSAN_OPTIONS="print_stacktrace=1:abort_on_error=1"
}

# The library has to be there before all others.  What the server leaves to the
# end of a process is no leak.
check_address()
{
	tests "$all" COPT="-fsanitize=address" ES_PRELOAD="$(gcc -print-file-name=libasan.so)" \
		ASAN_OPTIONS="detect_leaks=0:abort_on_error=1:detect_stack_use_after_return=0"
}

for check in "${checks[@]}"; do
	if ! declare -F "check_$check" >/dev/null; then
		echo "sanitize.sh knows no check \"$check\"" >&2
		exit 2
	fi
	"check_$check"
done
tally_end
