#!/usr/bin/env bash
#
# install-deps.sh [build|test|matrix|ci]: see that what a target needs is there.
#
#	build	a compiler and PostgreSQL's server and headers
#	test	the same, and what the test suites use (the default)
#	matrix	the same, and a second compiler
#	ci		the same, and the static checkers and a maker of other Debians
#
# Each need is probed by what it is used for, not by its package, so a
# PostgreSQL built from source (PG_CONFIG=/path/to/pg_config) counts as well as
# Debian's.  Where nothing is missing the script says nothing and touches
# neither apt nor the network.
#
# Debian's server package would create a cluster and start it.  The targets of
# this project leave no server running, so a server that this script installs
# comes without one; "pg_createcluster 15 main --start" makes it later.
set -euo pipefail

level=${1:-test}
pg_config=${PG_CONFIG:-pg_config}

have()
{
	command -v "$1" >/dev/null 2>&1
}

# pg_can DIRECTORY-OPTION FILE: does this PostgreSQL hold FILE there?
pg_can()
{
	have "$pg_config" || return 1
	local dir
	dir=$("$pg_config" "$1" 2>/dev/null) || return 1
	[[ -e $dir/$2 ]]
}

# The PostgreSQL that is already here, else the first one that apt offers.
debian_major()
{
	local v

	if have "$pg_config" && v=$("$pg_config" --version 2>/dev/null); then
		v=${v#PostgreSQL }
		echo "${v%%[!0-9]*}"
		return
	fi
	for v in 15 17 18 16; do
		if [[ -n $(apt-cache show --no-all-versions "postgresql-server-dev-$v" 2>/dev/null) ]]; then
			echo "$v"
			return
		fi
	done
	echo 15
}

# Is it Debian's PostgreSQL, or will it be?  Others come with their own add-ons.
debian_server()
{
	! have "$pg_config" || [[ $("$pg_config" --bindir) == /usr/lib/postgresql/* ]]
}

# Prints the missing packages, PG standing for the major version.
missing()
{
	have gcc || have cc || echo gcc
	have make || echo make
	[[ -e /usr/include/stdio.h ]] || echo libc6-dev
	pg_can --includedir-server postgres.h || echo postgresql-server-dev-PG
	pg_can --pkglibdir pgxs/src/makefiles/pgxs.mk || echo postgresql-server-dev-PG
	pg_can --bindir initdb || echo postgresql-PG
	pg_can --bindir psql || echo postgresql-client-PG
	[[ $level == build ]] && return

	have git || echo git
	have prove || echo perl
	perl -MIPC::Run -e 1 2>/dev/null || echo libipc-run-perl
	if debian_server; then
		pg_can --pkglibdir pg_cron.so || echo postgresql-PG-cron
		pg_can --sharedir extension/pgtap.control || echo postgresql-PG-pgtap
	fi
	[[ $level == test ]] && return

	have clang || echo clang
	[[ $level == matrix ]] && return

	have clang-tidy || echo clang-tidy
	have cppcheck || echo cppcheck
	have shellcheck || echo shellcheck
	! have apt-get || PATH=$PATH:/usr/sbin have debootstrap || echo debootstrap
}

case $level in
	build | test | matrix | ci) ;;
	*)
		echo "usage: install-deps.sh [build|test|matrix|ci]" >&2
		exit 2
		;;
esac

if [[ $pg_config == */* && ! -x $pg_config ]]; then
	echo "PG_CONFIG is \"$pg_config\", and there is no such program." >&2
	exit 1
fi

mapfile -t packages < <(missing | sort -u)
[[ ${#packages[@]} -eq 0 ]] && exit 0

if ! have apt-get; then
	echo "missing, and there is no apt-get to install it: ${packages[*]}" >&2
	exit 1
fi
as_root=()
if [[ $(id -u) -ne 0 ]]; then
	if ! have sudo; then
		echo "missing: ${packages[*]//PG/$(debian_major)}" >&2
		echo "Install them, or run this as root or as a user with sudo." >&2
		exit 1
	fi
	as_root=(sudo)
fi

log=$(mktemp)
no_cluster=/etc/postgresql-common/createcluster.d/eventstore-install.conf
placed=
finish()
{
	rm -f "$log"
	[[ -z $placed ]] || "${as_root[@]}" rm -f "$no_cluster"
}
trap finish EXIT

# run_quietly COMMAND...: its output is shown only if it fails.
run_quietly()
{
	if ! "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive "$@" >"$log" 2>&1 </dev/null; then
		cat "$log" >&2
		return 1
	fi
}

echo "installing with apt: updating the package lists"
run_quietly apt-get -q -o Acquire::Retries=3 update
major=$(debian_major)
packages=("${packages[@]//PG/$major}")

if [[ " ${packages[*]} " == *" postgresql-$major "* && ! -e $no_cluster ]]; then
	"${as_root[@]}" mkdir -p "${no_cluster%/*}"
	placed=yes
	echo "create_main_cluster = false" | "${as_root[@]}" tee "$no_cluster" >/dev/null
fi
echo "installing with apt: ${packages[*]}"
run_quietly apt-get -q -y -o Acquire::Retries=3 -o Dpkg::Use-Pty=0 \
	install --no-install-recommends "${packages[@]}"

mapfile -t packages < <(missing | sort -u)
if [[ ${#packages[@]} -gt 0 ]]; then
	echo "still missing after the installation, for \"$pg_config\": ${packages[*]//PG/$major}" >&2
	exit 1
fi
