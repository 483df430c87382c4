#!/usr/bin/env bash
#
# checked-postgres.sh [MAJOR]: a PostgreSQL that watches itself; prints the path
# of its pg_config.
#
# The packaged servers are built without assertions and know nothing of
# valgrind.  This builds that version (the one of PG_CONFIG) from Debian's
# source package with
#
#	--enable-cassert				assertions, and debug_discard_caches
#	-DUSE_VALGRIND					valgrind is told what palloc and pfree do
#	--enable-injection-points		from 17 on
#
# once, and keeps it (ES_CACHE, or eventstore in the user's cache directory)
# with the source's own list of what valgrind is to overlook.  The status is 77
# where the source cannot be had.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
exec </dev/null
# shellcheck source=test/tools/debian.sh
source test/tools/debian.sh

cache=${ES_CACHE:-${XDG_CACHE_HOME:-~/.cache}/eventstore}
major=${1:-$(postgres_major "${PG_CONFIG:-pg_config}")}
dest=$cache/postgresql-$major-checked

mkdir -p "$cache"
exec 9>"$dest.lock"
flock 9
if [[ -x $dest/bin/pg_config ]]; then
	echo "$dest/bin/pg_config"
	exit
fi

work=$(mktemp -d "${TMPDIR:-/tmp}/checked.XXXXXX")
trap 'rm -rf "$work"' EXIT

# run NAME COMMAND...: quietly; the end of its output is shown if it fails.
run()
{
	local name=$1
	shift
	if ! "$@" >"$work/log" 2>&1; then
		echo "PostgreSQL $major: $name failed:" >&2
		tail -n 20 "$work/log" >&2
		return 1
	fi
}

# source_apt PROGRAM ARGUMENT...: apt-get or apt-cache with lists of its own, so
# that the machine's are left as they are.
source_apt()
{
	local program=$1
	shift
	"$program" -q -o Dir::Etc::SourceList="$work/sources.list" -o Dir::Etc::SourceParts=- \
		-o Dir::State::Lists="$work/lists" -o Dir::Cache="$work/cache" -o APT::Sandbox::User= "$@"
}

# The newest source that is there: a mirror may list one before it has it.
fetch()
{
	local keyring=/usr/share/keyrings/debian-archive-keyring.gpg signed='' version

	[[ ! -e $keyring ]] || signed="[signed-by=$keyring]"
	mkdir -p "$work/lists/partial" "$work/cache/archives/partial"
	debian_sources | awk -v signed="$signed" '{ print "deb-src", signed, $1, $2, $3 }' >"$work/sources.list"
	run "reading the lists of sources" source_apt apt-get update || return 1
	cd "$work" || return 1
	for version in $(source_apt apt-cache madison "postgresql-$major" | awk '{ print $3 }'); do
		! run "fetching the source of $version" \
			source_apt apt-get source --download-only "postgresql-$major=$version" || return 0
	done
	return 1
}

build()
{
	local options=(--prefix="$dest" --enable-cassert --enable-debug --enable-tap-tests
		--without-readline --without-icu)

	[[ $major -lt 17 ]] || options+=(--enable-injection-points)
	mkdir "$work/tree" &&
		tar -x -C "$work/tree" --strip-components=1 --no-same-owner -f "$work"/*.orig.tar.* &&
		cd "$work/tree" &&
		run "configure" ./configure "${options[@]}" CPPFLAGS=-DUSE_VALGRIND \
			CFLAGS="-O1 -g -fno-omit-frame-pointer" &&
		run "make" make -j2 &&
		run "make install" make install &&
		cp src/tools/valgrind.supp "$dest/share/valgrind.supp"
}

echo "building PostgreSQL $major with assertions, in $dest" >&2
if ! (fetch); then
	exit 77
fi
if ! (build); then
	rm -rf "$dest"
	exit 1
fi
echo "$dest/bin/pg_config"
