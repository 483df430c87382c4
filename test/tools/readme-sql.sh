#!/usr/bin/env bash
#
# readme-sql.sh FILE: run the SQL of a Markdown file as a reader would.
#
# Every ```sql block runs in order, each by a psql of its own, in a new database,
# stopping at the first error.  What follows "sql" says what to expect, and where:
#
#	```sql					succeeds
#	```sql error=40001		fails, and with this SQLSTATE
#	```sql database=NAME	runs in another database, as do the blocks after it;
#							it is made when it is named first ("readme" is the first)
#
# Blocks of other languages are left alone.  Prints "ok" or "not ok" a block,
# with its line, as a TAP test does, and psql's output where it was not ok.
# Needs a server reachable by the PG* variables, and leaves the databases there.
set -euo pipefail

file=$1
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

[[ -e $file ]] || exit 0

# Writes each block to NUMBER.sql, and "NUMBER LINE INFO-STRING" to the list.
awk -v dir="$dir" '
	open && /^[ \t]*```[ \t]*$/	{ open = 0; close(out); next }
	open						{ print > out; next }
	other						{ if (/^[ \t]*```[ \t]*$/) other = 0; next }
	/^[ \t]*```sql([ \t]|$)/	{
		open = 1
		out = sprintf("%s/%03d.sql", dir, ++n)
		printf "" > out
		info = $0
		sub(/^[ \t]*```sql[ \t]*/, "", info)
		print sprintf("%03d", n), NR, info
		next
	}
	/^[ \t]*```/				{ other = 1 }
	END							{ if (open) print "unclosed", NR, "" }
' "$file" >"$dir/list"

# use DATABASE: make it if it is new, and run what follows in it
declare -A made
use()
{
	database=$1
	[[ -n ${made[$1]:-} ]] || createdb "$1"
	made[$1]=yes
}
use readme

# run_block NUMBER: psql's output, with the SQLSTATE in each error.
run_block()
{
	psql -X -q -d "$database" -v ON_ERROR_STOP=1 -v VERBOSITY=verbose -f "$dir/$1.sql" \
		>"$dir/output" 2>&1 </dev/null
}

# expectation_met EXIT-STATUS INFO-STRING
expectation_met()
{
	case $2 in
		"") [[ $1 -eq 0 ]] ;;
		error=?????) [[ $1 -eq 3 ]] && grep -q "ERROR:  ${2#error=}:" "$dir/output" ;;
		*)
			echo "The info-string \"$2\" is not known; see readme-sql.sh." >>"$dir/output"
			return 1
			;;
	esac
}

failed=0
while read -r number line info; do
	status=0
	case $info in
		database=*)
			use "${info#database=}"
			info=
			;;
	esac
	[[ $number == unclosed ]] || run_block "$number" || status=$?
	if [[ $number != unclosed ]] && expectation_met "$status" "$info"; then
		echo "ok $number - ${file##*/} line $line${info:+ ($info)}"
	else
		echo "not ok $number - ${file##*/} line $line${info:+ ($info)}"
		[[ ! -e $dir/output ]] || sed 's/^/# /' "$dir/output"
		failed=1
	fi
done <"$dir/list"
exit "$failed"
