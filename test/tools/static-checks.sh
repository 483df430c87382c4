#!/usr/bin/env bash
#
# static-checks.sh NAME: one check of the sources, silent if it holds.
# static-checks.sh list: the names of all.
#
# A check looks at tracked files, and at those that git would let be added.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
pg_config=${PG_CONFIG:-pg_config}

files()
{
	git -c "safe.directory=*" ls-files -co --exclude-standard -- "$@" |
		while read -r file; do [[ ! -f $file ]] || echo "$file"; done
}

# no_line PATTERN FILE...: no line of these files matches the extended regexp.
no_line()
{
	local pattern=$1
	shift
	[[ $# -gt 0 ]] || return 0
	! grep -nIE -- "$pattern" "$@" /dev/null
}

# build_with COMPILER FLAGS: without a warning, in the sandbox's copy.
build_with()
{
	# shellcheck disable=SC2016
	test/tools/sandbox.sh --installed bash -c '
		make -s -j2 all with_llvm=no PG_CONFIG="$PG_CONFIG" CC="$0" COPT="-Werror $1"' "$1" "$2"
}

check_build-gcc()
{
	build_with gcc ""
}

# As the developers' and the seeded-bug builds see it.
check_build-gcc-points()
{
	build_with gcc "-DES_POINTS -DES_BUG=0 -O0"
}

# PostgreSQL's flags were chosen by the compiler that it was built with.
check_build-clang()
{
	build_with clang "-Wno-unknown-warning-option -Wno-ignored-optimization-argument -Wno-ignored-attributes"
}

check_cppcheck()
{
	local include
	include=$("$pg_config" --includedir-server)
	# Its own view of PostgreSQL's headers is not worth the time: macros that it
	# needs to know are given here.
	cppcheck --quiet --error-exitcode=1 --inline-suppr --std=c99 \
		--enable=warning,performance,portability \
		--suppress=missingInclude --suppress=missingIncludeSystem \
		--suppress=unknownMacro --suppress=nullPointerRedundantCheck \
		--suppress=uninitvar --suppress="*:$include/*" \
		-DPG_VERSION_NUM=150000 -D'PG_FUNCTION_INFO_V1(x)=' -D'PG_MODULE_MAGIC=' \
		-D'PG_TRY()=if(1)' -D'PG_CATCH()=else' -D'PG_FINALLY()=if(1)' -D'PG_END_TRY()=' \
		src
}

# What it looks for is in .clang-tidy.  It would rather be told how each file is
# compiled; that it was not it says on its standard error.
check_clang-tidy()
{
	files 'src/*.c' | xargs -P 2 -n 4 clang-tidy --quiet \
		--extra-arg="-I$("$pg_config" --includedir-server)" --extra-arg=-D_GNU_SOURCE 2>/dev/null
}

# SC2317: functions that only a trap calls are not seen to be called.
check_shellcheck()
{
	# shellcheck disable=SC2046
	shellcheck --external-sources --exclude=SC2317 .ci/run $(files '*.sh')
}

check_version-in-compat-only()
{
	# shellcheck disable=SC2046
	no_line 'PG_VERSION_NUM' $(files 'src/*.[ch]' | grep -v '^src/compat\.h$')
}

# CI builds against 17 at most; these are gone in 18.
check_no-macro-that-18-dropped()
{
	# shellcheck disable=SC2046
	no_line 'pg_attribute_noreturn|INT64_MODIFIER' $(files 'src/*.[ch]' | grep -v '^src/compat\.h$')
}

check_no-trailing-whitespace()
{
	# Expected output holds what the programs print.
	# shellcheck disable=SC2046
	no_line '[ 	]+$' $(files | grep -vE '^expected/|\.(png|svg)$')
}

# A home directory or a fixed place in /tmp is there on one machine only.
check_no-machine-paths()
{
	# shellcheck disable=SC2046
	no_line "(^|[[:space:]=\"'(])/((home|root|Users)/[a-z]|tmp/[A-Za-z])" $(files)
}

# pg_regress would take a file there for a test of that name.
check_sql-holds-scripts-only()
{
	# shellcheck disable=SC2046
	! printf '%s\n' $(files 'sql/*.sql') | grep -vE '^sql/(parts|router)/|^sql/eventstore--[0-9.]+(--[0-9.]+)?\.sql$|^$'
}

# An install script creates, and takes nothing over that is there; a function with
# its owner's rights, and one whose body is a text, has a search_path that is
# fixed.  (expected/privilege.out: nobody is let in by way of PUBLIC.)
check_install-script-is-safe()
{
	# shellcheck disable=SC2046
	no_line 'OR REPLACE|IF NOT EXISTS' $(files 'sql/parts/*.sql')
	# shellcheck disable=SC2046
	! awk '
		/^CREATE (OR REPLACE )?(FUNCTION|PROCEDURE) / { statement = $0; path = definer = 0; open = 1 }
		open && /SECURITY DEFINER|LANGUAGE (sql|plpgsql)/ { definer = 1 }
		open && /SET search_path = pg_catalog, pg_temp/ { path = 1 }
		open && (/^AS \$\$/ || /;$/) { if (definer && !path) print FILENAME ": " statement; open = 0 }
	' $(files 'sql/parts/*.sql' 'sql/eventstore--*.sql') | grep .
}

# What was released stays as it was: databases were made by it.  Everything but
# the step to the version that is being made is frozen, and nothing is missing.
check_released-sql-is-frozen()
{
	local version
	version=$(make -s print-EXTVERSION)

	sha256sum --check --quiet --strict test/frozen.sha256
	diff <(files 'sql/eventstore--*.sql' | grep -v -- "--$version\.sql\$" | sort) \
		<(awk '{ print $2 }' test/frozen.sha256 | sort)
}

# The rooms, their SQL, their tests and expected output belong together.
check_every-test-has-its-output()
{
	local file name missing=0

	for file in $(files 'test/sql/*.sql' 'test/specs/*.spec'); do
		name=${file#test/sql/}
		name=${name#test/specs/}
		name=${name%.*}
		if [[ ! -s expected/$name.out ]]; then
			echo "expected/$name.out is missing or empty"
			missing=1
		fi
		if [[ $file == *.sql && " $(make -s print-REGRESS) " != *" $name "* ]]; then
			echo "REGRESS in the Makefile does not run $file"
			missing=1
		fi
	done
	return $missing
}

# README.md lists every error, and a test provokes it.
check_errors-listed()
{
	PG_CONFIG=$pg_config test/tools/errors.pl check
}

case ${1:-} in
	list) declare -F | sed -n 's/^declare -f check_//p' ;;
	*)
		if ! declare -F "check_${1:-}" >/dev/null; then
			echo "usage: static-checks.sh list | NAME" >&2
			exit 2
		fi
		"check_$1"
		;;
esac
