# debian.sh: a minimal Debian in a directory, and commands inside it; to be
# sourced.
#
#	debian_possible			is this root on a Debian that has debootstrap?
#	postgres_major PG_CONFIG
#							the version that a pg_config tells, "15"
#	debian_suite			the release that this machine runs
#	debian_base SUITE DIR	make one (from where this machine's apt gets its own)
#	debian_enter DIR USER COMMAND
#							run a shell command in it, with an end to everything
#							that the command started
#
# Needs root: an installed system belongs to root, and mounting does too.
# shellcheck shell=bash

postgres_major()
{
	local version

	version=$("$1" --version 2>/dev/null) || return 0
	version=${version#PostgreSQL }
	echo "${version%%[!0-9]*}"
}

debian_possible()
{
	[[ $(id -u) -eq 0 ]] && command -v debootstrap >/dev/null && command -v apt-get >/dev/null
}

debian_suite()
{
	(. /etc/os-release && echo "$VERSION_CODENAME")
}

# What this machine's apt knows of Debian, as "SITE RELEASE COMPONENT" lines.
debian_sources()
{
	# shellcheck disable=SC2016
	apt-get indextargets --format '$(SITE) $(RELEASE) $(COMPONENT)' \
		'Created-By: Packages' 'Origin: Debian' | sort -u
}

# How this machine's apt was told to behave towards its sources.
debian_apt_settings()
{
	apt-config dump | grep -E '^Acquire::(Check-|http|Retries)' || true
}

# A release of this machine's own apt gets all of its sources; another one is
# taken from where this machine's release comes from.
debian_base()
{
	local suite=$1 dir=$2 log sources own mirror
	log=$(mktemp)

	sources=$(debian_sources)
	mirror=$(awk -v suite="$suite" '$2 == suite { print $1; exit }' <<<"$sources")
	if [[ -z $mirror ]]; then
		own=$(debian_suite)
		mirror=$(awk -v suite="$own" '$2 == suite { print $1; exit }' <<<"$sources")
		sources="$mirror $suite main"
	fi
	if [[ -z $mirror ]]; then
		echo "This machine's apt knows no $suite; apt-get update may help." >&2
		rm -f "$log"
		return 1
	fi
	if ! debootstrap --variant=minbase --include=make "$suite" "$dir" "$mirror" >"$log" 2>&1 </dev/null; then
		tail -n 20 "$log" >&2
		rm -f "$log"
		return 1
	fi
	rm -f "$log"
	awk '{ print "deb", $1, $2, $3 }' <<<"$sources" >"$dir/etc/apt/sources.list"
	debian_apt_settings >"$dir/etc/apt/apt.conf.d/99host"
	cp -L /etc/resolv.conf /etc/hosts "$dir/etc/"
}

# In namespaces of its own, so that every process that is left ends with it;
# what is in the array "namespaces" is passed to unshare, too, and what is in
# "binds" (pairs of a directory here and one there) is mounted.  Fails if
# COMMAND does, or leaves a process or a file in a temporary directory behind.
namespaces=()
binds=()
debian_enter()
{
	unshare --mount --pid --fork --kill-child "${namespaces[@]}" bash -s "$@" "${binds[@]}" <<'INSIDE'
		set -euo pipefail
		dir=$1 user=$2 command=$3
		shift 3
		while [[ $# -gt 0 ]]; do
			mkdir -p "$dir$2"
			mount --bind "$1" "$dir$2"
			shift 2
		done
		mount -t proc proc "$dir/proc"
		mkdir -p "$dir/dev/shm"
		mount -t tmpfs -o mode=1777 tmpfs "$dir/dev/shm"
		status=0
		chroot "$dir" /usr/bin/env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
			${http_proxy:+http_proxy=$http_proxy} setpriv --reuid="$user" --regid="$user" --init-groups \
			bash -c "cd /srv/eventstore && export HOME=/tmp && $command" </dev/null || status=$?
		left=
		for comm in "$dir"/proc/[0-9]*/comm; do
			pid=${comm%/comm}
			pid=${pid##*/}
			[[ $pid -eq 1 ]] || left+=" $(cat "$comm" 2>/dev/null || true)"
		done
		files=$(ls -A "$dir/tmp" "$dir/dev/shm" | grep -v ':$' | paste -s -d ' ')
		if [[ -n ${left// /} || -n ${files// /} ]]; then
			echo "left behind: processes:$left; files: $files"
			exit 1
		fi
		exit $status
INSIDE
}
