#!/usr/bin/env bash
#
# sandbox.sh [--installed] COMMAND [ARGUMENT...]: run a command where it can
# spoil nothing.
#
# It copies this tree and the PostgreSQL installation that PG_CONFIG names into
# a new temporary directory, becomes an unprivileged user where it was started
# by root (PostgreSQL refuses to run as root), and runs COMMAND in the copy of
# the tree.  So "make install" there installs into the private PostgreSQL and
# never over the one in use; a checkout may be read-only, or readable by root
# alone; and whatever a test leaves behind goes with the directory.
#
# PostgreSQL finds its libraries and shared files by their place relative to
# its own program, so a copy that keeps their paths below another root works,
# for a build from source and for Debian's layout.
#
#	--installed		do not copy PostgreSQL: COMMAND uses the installed one
#
# COMMAND finds in its environment
#	PG_CONFIG		of the private installation
#	ES_WORK			the temporary directory; everything written belongs below it
#	ES_GIT_REPO		a clone of this project's history, if the tree has one
# and nothing of the caller's make flags and PG* variables, save PG_TEST_*.
#
# At the end, however it comes, every process of COMMAND's session and every
# server whose data directory lies below ES_WORK is stopped, and the directory
# removed.  KEEP=1 keeps it, and says where it is; RESULTS=DIRECTORY copies the
# tree's results/ to DIRECTORY first.
set -euo pipefail

tree=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
installed=
if [[ ${1:-} == --installed ]]; then
	installed=yes
	shift
fi
if [[ $# -eq 0 ]]; then
	echo "usage: sandbox.sh [--installed] COMMAND [ARGUMENT...]" >&2
	exit 2
fi

pg_config=${PG_CONFIG:-pg_config}
if ! bindir=$("$pg_config" --bindir); then
	echo "There is no PostgreSQL at PG_CONFIG=$pg_config." >&2
	exit 1
fi

# Sockets are made below the directory, and their paths may have 107 bytes.
base=${TMPDIR:-/tmp}
[[ ${#base} -le 40 ]] || base=/tmp
work=$(mktemp -d "$base/es.XXXXXX")
chmod 755 "$work"
child=
results=${RESULTS:+$(realpath -m "$RESULTS")}

# The processes of the session that this script started.
session_pids()
{
	local stat pid rest session

	for stat in /proc/[0-9]*/stat; do
		# pid (name) state parent group session ...: the name may hold anything
		{ read -r rest <"$stat"; } 2>/dev/null || continue
		pid=${rest%% *}
		read -r _ _ _ session _ <<<"${rest##*) }"
		[[ $session != "$child" ]] || echo "$pid"
	done
}

# The servers whose data directory is below ours.
server_pids()
{
	local file pid

	find "$work" -name postmaster.pid -type f 2>/dev/null | while read -r file; do
		pid=$(head -n 1 "$file")
		[[ $(readlink "/proc/$pid/cwd" 2>/dev/null) != "${file%/*}" ]] || echo "$pid"
	done
}

# stop_all SIGNAL LISTER TENTHS: signal what the lister lists until it is gone.
stop_all()
{
	local pids i

	for ((i = 0; i < $3; i++)); do
		pids=$($2)
		[[ -n $pids ]] || return 0
		# shellcheck disable=SC2086
		((i % 10)) || kill "-$1" $pids 2>/dev/null || true
		sleep 0.1
	done
}

finish()
{
	trap '' INT TERM HUP
	if [[ -n $child ]]; then
		stop_all TERM session_pids 30
		stop_all QUIT server_pids 50
		stop_all KILL session_pids 20
		stop_all KILL server_pids 20
	fi
	if [[ -n $results && -d $work/tree/results ]]; then
		mkdir -p "$results"
		cp -r --no-preserve=all "$work/tree/results/." "$results"
	fi
	if [[ -n ${KEEP:-} ]]; then
		echo "kept: $work"
	else
		chmod -R u+rwX "$work" 2>/dev/null || true
		rm -rf "$work"
	fi
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

copy_tree()
{
	mkdir "$work/tree" "$work/home" "$work/tmp"
	tar -C "$tree" -c --mode=u+rwX --exclude=./.git --exclude='*.o' --exclude='*.so' --exclude='*.bc' \
		--exclude=./results --exclude=./tmp_check --exclude=./log --exclude=node_modules . |
		tar -C "$work/tree" -x --no-same-owner
}

# The history goes through a bundle: cloning a repository of another owner is
# refused by git, reading it in this one command is not.
copy_history()
{
	local git=(git -c "safe.directory=*" -C "$tree")

	command -v git >/dev/null || return 0
	[[ $("${git[@]}" rev-parse --show-toplevel 2>/dev/null) == "$tree" ]] || return 0
	"${git[@]}" bundle create -q "$work/history" HEAD 2>/dev/null || return 0
	git clone -q "$work/history" "$work/repo" >/dev/null 2>&1 || return 0
	rm "$work/history"
	export ES_GIT_REPO=$work/repo
}

# JIT bitcode is left out: only its size would be noticed.
copy_postgres()
{
	local option dir libdir root=$work/pg

	for option in --bindir --pkglibdir --sharedir --includedir-server; do
		dir=$("$pg_config" $option)
		mkdir -p "$root$dir"
		tar -C "$dir" -ch --mode=u+rwX --exclude=./bitcode --exclude='./eventstore*' \
			--exclude='./extension/eventstore*' . | tar -C "$root$dir" -x --no-same-owner
	done
	libdir=$("$pg_config" --libdir)
	mkdir -p "$root$libdir"
	cp -a "$libdir"/libpq.so* "$root$libdir"
	export LD_LIBRARY_PATH=$root$libdir
	export PG_CONFIG=$root$bindir/pg_config

	for option in --pkglibdir --sharedir --includedir-server; do
		dir=$("$PG_CONFIG" $option)
		if [[ $dir != "$root"/* ]]; then
			echo "This PostgreSQL cannot be copied: its $option stays at $dir." >&2
			exit 1
		fi
	done
}

copy_tree
copy_history
export PG_CONFIG=$pg_config
[[ -n $installed ]] || copy_postgres

become=()
if [[ $(id -u) -eq 0 ]]; then
	user=postgres
	getent passwd $user >/dev/null || user=nobody
	uid=$(id -u $user)
	gid=$(id -g $user)
	chown -R "$uid:$gid" "$work"
	become=(setpriv "--reuid=$uid" "--regid=$gid" --clear-groups)
	export USER=$user LOGNAME=$user
fi

for variable in ${!PG*} MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES; do
	[[ $variable == PG_CONFIG || $variable == PG_TEST_* ]] || unset "$variable"
done
export ES_WORK=$work HOME=$work/home TMPDIR=$work/tmp LC_ALL=C.UTF-8

cd "$work/tree"
setsid "${become[@]}" "$@" </dev/null &
child=$!
status=0
wait "$child" || status=$?
exit "$status"
