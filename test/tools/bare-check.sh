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

# shellcheck source=test/tools/debian.sh
source test/tools/debian.sh
if ! debian_possible; then
	echo "bare-check needs root and debootstrap." >&2
	exit 1
fi
suite=${SUITE:-$(debian_suite)}

root=$(mktemp -d "${TMPDIR:-/tmp}/bare.XXXXXX")
trap 'rm -rf --one-file-system "$root"' EXIT

# A clone, through a bundle: whose the checkout is does not matter then.
clone_into()
{
	git -c "safe.directory=*" bundle create -q "$root/history" HEAD
	git -c advice.detachedHead=false clone -q "$root/history" "$1"
}

# step NAME COMMAND
step()
{
	echo "== as $mode, $1"
	if debian_enter "$dir" "$user" "$2"; then
		passed=$((passed + 1))
	else
		echo "== as $mode, $1: failed"
		failed=$((failed + 1))
	fi
}

passed=0
failed=0
echo "making a minimal $suite"
debian_base "$suite" "$root/base"
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
