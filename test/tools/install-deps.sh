#!/usr/bin/env bash
#
# install-deps.sh [build|test|matrix|sanitize|ci]: see that what a target needs is there.
#
#	build	a compiler and PostgreSQL's server and headers
#	test	the same, and what the test suites use (the default)
#	matrix	the same, and a second compiler
#	sanitize	as test, and what builds a PostgreSQL, and valgrind
#	ci		as matrix, and the static checkers and a maker of other Debians
#
# Each need is probed by what it is used for, not by its package, so a
# PostgreSQL built from source (PG_CONFIG=/path/to/pg_config) counts as well as
# Debian's.  Where nothing is missing the script says nothing and touches
# neither apt nor the network.
#
# Debian's server package would create a cluster and start it.  The targets of
# this project leave no server running, so a server that this script installs
# comes without one; "pg_createcluster 15 main --start" makes it later.  Nor are
# other servers started, now or when the machine is: they are the tests' own.
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

	if [[ $level == sanitize ]]; then
		have valgrind || echo valgrind
		have bison || echo bison
		have flex || echo flex
		[[ -e /usr/include/zlib.h ]] || echo zlib1g-dev
		have bzip2 || echo bzip2
		return
	fi

	have clang || echo clang
	[[ $level == matrix ]] && return

	have clang-tidy || echo clang-tidy
	have cppcheck || echo cppcheck
	have shellcheck || echo shellcheck
	! have apt-get || PATH=$PATH:/usr/sbin have debootstrap || echo debootstrap
}

# Prints what is missing of the things without which some tests are skipped.
optional()
{
	[[ $level == build ]] && return
	! debian_server || pg_can --pkglibdir plproxy.so || echo postgresql-PG-plproxy
	have redis-server || echo redis-server
	have nats-server || [[ -x /usr/sbin/nats-server ]] || echo nats-server
	have node || printf '%s\n' nodejs npm
	have chromium || have chromium-browser || have google-chrome || echo chromium
	have prometheus-postgres-exporter || echo prometheus-postgres-exporter
	have prometheus-sql-exporter || echo prometheus-sql-exporter
	have promtool || echo prometheus
	have etcd || echo etcd-server
	have patroni || echo patroni
}

case $level in
	build | test | matrix | sanitize | ci) ;;
	*)
		echo "usage: install-deps.sh [build|test|matrix|sanitize|ci]" >&2
		exit 2
		;;
esac

if [[ $pg_config == */* && ! -x $pg_config ]]; then
	echo "PG_CONFIG is \"$pg_config\", and there is no such program." >&2
	exit 1
fi

mapfile -t packages < <(missing | sort -u)
mapfile -t extras < <(optional)
[[ ${#packages[@]} -eq 0 && ${#extras[@]} -eq 0 ]] && exit 0

# Tests that cannot run say so; that is no reason to run none.
if [[ ${#packages[@]} -eq 0 ]] &&
	{ ! have apt-get || { [[ $(id -u) -ne 0 ]] && ! have sudo; }; }; then
	echo "cannot be installed here, and some tests are skipped without: ${extras[*]}" >&2
	exit 0
fi
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
no_start=/usr/sbin/policy-rc.d
placed=()
finish()
{
	rm -f "$log"
	[[ ${#placed[@]} -eq 0 ]] || "${as_root[@]}" rm -f "${placed[@]}"
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

# install PACKAGE...
install()
{
	run_quietly apt-get -q -y -o Acquire::Retries=3 -o Dpkg::Use-Pty=0 \
		install --no-install-recommends "$@"
}

# place FILE TEXT: for the time of this script, unless there is one.
place()
{
	[[ ! -e $1 ]] || return 0
	"${as_root[@]}" mkdir -p "${1%/*}"
	placed+=("$1")
	echo "$2" | "${as_root[@]}" tee "$1" >/dev/null
}

# Packages that bring a server of their own start it, and with the machine, too.
install_stopped()
{
	local unit=$1

	[[ $1 != etcd-server ]] || unit=etcd
	place "$no_start" $'#!/bin/sh\nexit 101'
	[[ -x $no_start ]] || "${as_root[@]}" chmod +x "$no_start"
	install "$1" || return
	[[ $1 != *-server && $1 != prometheus* && $1 != patroni ]] || ! have systemctl ||
		"${as_root[@]}" systemctl -q disable "$unit.service" >/dev/null 2>&1 || true
}

echo "installing with apt: updating the package lists"
if ! run_quietly apt-get -q -o Acquire::Retries=3 update && [[ ${#packages[@]} -gt 0 ]]; then
	exit 1
fi
if [[ ${#packages[@]} -gt 0 ]]; then
	major=$(debian_major)
	packages=("${packages[@]//PG/$major}")
	[[ " ${packages[*]} " != *" postgresql-$major "* ]] ||
		place "$no_cluster" "create_main_cluster = false"
	echo "installing with apt: ${packages[*]}"
	install "${packages[@]}"

	mapfile -t packages < <(missing | sort -u)
	if [[ ${#packages[@]} -gt 0 ]]; then
		echo "still missing after the installation, for \"$pg_config\": ${packages[*]//PG/$major}" >&2
		exit 1
	fi
fi
for package in "${extras[@]//PG/$(debian_major)}"; do
	echo "installing with apt: $package"
	install_stopped "$package" || echo "$package cannot be installed: the tests that need it are skipped" >&2
done
