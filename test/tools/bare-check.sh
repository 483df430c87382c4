#!/usr/bin/env bash
#
# bare-check.sh [root] [sudo]: prove that "make quickstart" and "make test" work
# on a Debian that holds nothing but make.
#
# Makes a minimal Debian in a new directory (debootstrap, in process and mount
# namespaces of its own), clones the committed tree into it, and runs there, as
# root and as a user with sudo (or as the one named):
#
#	make quickstart		installs, shows
#	make quickstart		again, without a network: everything is there by now
#	make test			installs the rest, tests
#
# and after each, that no process and no file in /tmp is left.  Needs root,
# debootstrap and some minutes.  The packages come from where this machine's
# own apt gets them.  SUITE names another release than this machine's.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
modes=("${@:-root}")
[[ $# -gt 0 ]] || modes=(root sudo)

if [[ $(id -u) -ne 0 ]] || ! command -v debootstrap >/dev/null; then
	echo "bare-check needs root and debootstrap." >&2
	exit 1
fi
suite=${SUITE:-$(. /etc/os-release && echo "$VERSION_CODENAME")}

# What this machine's apt knows of Debian, as "SITE RELEASE COMPONENT" lines.
# shellcheck disable=SC2016
sources=$(apt-get indextargets --format '$(SITE) $(RELEASE) $(COMPONENT)' \
	'Created-By: Packages' 'Origin: Debian' | sort -u)
mirror=$(awk -v suite="$suite" '$2 == suite { print $1; exit }' <<<"$sources")
if [[ -z $mirror ]]; then
	echo "This machine's apt knows no $suite; apt-get update may help." >&2
	exit 1
fi

root=$(mktemp -d "${TMPDIR:-/tmp}/bare.XXXXXX")
trap 'rm -rf --one-file-system "$root"' EXIT

make_base()
{
	echo "making a minimal $suite"
	if ! debootstrap --variant=minbase --include=make "$suite" "$root/base" "$mirror" >"$root/log" 2>&1; then
		tail -n 20 "$root/log"
		exit 1
	fi
	awk '{ print "deb", $1, $2, $3 }' <<<"$sources" >"$root/base/etc/apt/sources.list"
	apt-config dump | grep -E '^Acquire::(Check-|http|Retries)' \
		>"$root/base/etc/apt/apt.conf.d/99host" || true
	cp -L /etc/resolv.conf /etc/hosts "$root/base/etc/"
}

# A clone, through a bundle: whose the checkout is does not matter then.
clone_into()
{
	git -c "safe.directory=*" bundle create -q "$root/history" HEAD
	git -c advice.detachedHead=false clone -q "$root/history" "$1"
}

# enter DIRECTORY USER COMMAND: in namespaces of its own, so that every process
# that is left ends with it.  Fails if COMMAND does, or leaves something behind.
enter()
{
	unshare --mount --pid --fork --kill-child "${namespaces[@]}" bash -s "$@" <<'INSIDE'
		set -euo pipefail
		dir=$1 user=$2 command=$3
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

# step NAME COMMAND
step()
{
	echo "== as $mode, $1"
	if enter "$dir" "$user" "$2"; then
		passed=$((passed + 1))
	else
		echo "== as $mode, $1: failed"
		failed=$((failed + 1))
	fi
}

passed=0
failed=0
namespaces=()
make_base
for mode in "${modes[@]}"; do
	dir=$root/$mode
	user=root
	cp -a "$root/base" "$dir"
	clone_into "$dir/srv/eventstore"
	if [[ $mode == sudo ]]; then
		user=tester
		chroot "$dir" bash -c 'apt-get -q update && apt-get -q -y install --no-install-recommends sudo &&
			useradd tester && echo "tester ALL=(ALL) NOPASSWD: ALL" >/etc/sudoers.d/tester &&
			chown -R tester:tester /srv/eventstore' >"$root/log" 2>&1 </dev/null || { tail "$root/log"; exit 1; }
	fi
	step "make quickstart" "make quickstart"
	namespaces=(--net)
	step "make quickstart, without a network" "make quickstart"
	namespaces=()
	step "make test" "make test"
	rm -rf --one-file-system "$dir"
done

printf '\n%s passed, %s failed\n' "$passed" "$failed"
[[ $failed -eq 0 && $passed -gt 0 ]]
