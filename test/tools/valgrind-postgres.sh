#!/usr/bin/env bash
#
# valgrind-postgres.sh ARGUMENT...: postgres under valgrind's memcheck, in place
# of postgres (pg_ctl -p).  Each process writes what it did wrong to a file in
# ES_WORK/valgrind, one that did nothing wrong an empty one.
set -euo pipefail

prefix=$(dirname "$("$PG_CONFIG" --bindir)")
mkdir -p "$ES_WORK/valgrind"
exec valgrind --quiet --trace-children=yes --leak-check=no --track-origins=yes \
	--suppressions="$prefix/share/valgrind.supp" --log-file="$ES_WORK/valgrind/%p" \
	"$prefix/bin/postgres" "$@"
