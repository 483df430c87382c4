#!/usr/bin/env bash
#
# matrix.sh [VERSION...]: build and test on these PostgreSQL versions (15 17 18).
#
# The version that PG_CONFIG names is tested on this machine.  Each other one is
# tested in the Debian release that carries it, a minimal one in a directory,
# which is made at the first call (root, debootstrap, a minute) and kept:
#
#	ES_CACHE	where it is kept (eventstore in the user's cache directory);
#				removing a directory there makes that release anew
#
# On each version: builds without a warning by two compilers, make test, and the
# isolation specs that need stopping points.
#
#	SUITES, TESTS, JOBS		as for make test; SUITES may hold "points"
#
# The tree is tested as it is, committed or not.  The last line is "N passed,
# N failed".  A version whose Debian cannot be made here is said to be skipped,
# and counts nothing; the exit status is 77 if that leaves none.
#
# matrix.sh here: test the version that PG_CONFIG names, and nothing else.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
exec </dev/null
# shellcheck source=test/tools/debian.sh
source test/tools/debian.sh
# shellcheck source=test/tools/tally.sh
source test/tools/tally.sh

cache=${ES_CACHE:-${XDG_CACHE_HOME:-~/.cache}/eventstore}
SUITES=${SUITES:-regress isolation points examples readme tap}

# The Debian release that carries a version.
release_of()
{
	case $1 in
		15) echo bookworm ;;
		17) echo trixie ;;
		18) echo sid ;;
		*)
			echo "matrix.sh knows no Debian release with PostgreSQL $1." >&2
			return 1
			;;
	esac
}

test_here()
{
	local name others

	for name in build-gcc build-gcc-points build-clang; do
		check "$name" test/tools/static-checks.sh "$name"
	done
	others=$(tr ' ' '\n' <<<"$SUITES" | grep -vx points | paste -s -d ' ' || true)
	[[ -z ${others// /} ]] || SUITES=$others add_up "make test" make --no-print-directory test
	[[ " $SUITES " != *" points "* ]] || COPT="-DES_POINTS -DES_BUG=0" SUITES=points \
		add_up "make test SUITES=points" make --no-print-directory test
	tally_end
}

# The tree as it is, with its history, below a directory.
lay_tree()
{
	local git=(git -c "safe.directory=*")

	mkdir -p "$1"
	if "${git[@]}" rev-parse HEAD >/dev/null 2>&1; then
		"${git[@]}" bundle create -q "$work/history" HEAD
		"${git[@]}" clone -q --no-checkout "$work/history" "$1/eventstore"
		"${git[@]}" ls-files -co --exclude-standard -z |
			while IFS= read -r -d '' file; do [[ ! -e $file ]] || printf '%s\0' "$file"; done |
			tar --null -T - -c | tar -x --no-same-owner -C "$1/eventstore"
	else
		mkdir "$1/eventstore"
		tar -c . | tar -x --no-same-owner -C "$1/eventstore"
	fi
}

# Make a release's directory, or bring what is installed there up to what the
# tests need.  One at a time, and not below a running test: the caller locks.
prepare()
{
	local suite=$1 dir=$2

	if [[ ! -d $dir ]]; then
		echo "making a minimal $suite in $dir"
		rm -rf --one-file-system "$dir.new"
		debian_base "$suite" "$dir.new" || return 1
		mv "$dir.new" "$dir"
	fi
	debian_enter "$dir" root "test/tools/install-deps.sh matrix"
}

test_in_debian()
{
	local version=$1 suite dir command
	suite=$(release_of "$version")
	dir=$cache/debian-$suite

	if ! debian_possible; then
		echo "SKIPPED: PostgreSQL $version needs root and debootstrap here."
		return
	fi
	mkdir -p "$cache" "$work/$version/tmp"
	chmod 1777 "$work/$version/tmp"
	lay_tree "$work/$version/srv"
	binds=("$work/$version/srv" /srv "$work/$version/tmp" /tmp)
	exec 9>"$dir.lock"
	flock 9
	if ! prepare "$suite" "$dir"; then
		echo "SKIPPED: PostgreSQL $version: its Debian ($suite) could not be made."
		return
	fi
	flock --shared 9
	printf -v command 'PG_CONFIG=pg_config SUITES=%q TESTS=%q JOBS=%q test/tools/matrix.sh here' \
		"$SUITES" "${TESTS:-*}" "${JOBS:-2}"
	add_up "PostgreSQL $version, Debian $suite" debian_enter "$dir" root "$command"
	exec 9>&-
}

if [[ ${1:-} == here ]]; then
	test_here
	exit
fi

versions=("${@:-15}")
[[ $# -gt 0 ]] || versions=(15 17 18)
work=$(mktemp -d "${TMPDIR:-/tmp}/matrix.XXXXXX")
trap 'rm -rf --one-file-system "$tally_log" "$work"' EXIT
for version in "${versions[@]}"; do
	release_of "$version" >/dev/null
	if [[ $version == "$(postgres_major "${PG_CONFIG:-pg_config}")" ]]; then
		add_up "PostgreSQL $version, this machine" test/tools/matrix.sh here
	else
		test_in_debian "$version"
	fi
done
if [[ $passed -eq 0 && $failed -eq 0 ]]; then
	echo "No version could be tested."
	exit 77
fi
tally_end
