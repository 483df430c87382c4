#!/usr/bin/env bash
#
# install-deps.sh [build|test|ci]: see that what a target needs is there.
#
#	build	a compiler and PostgreSQL's server and headers
#	test	the same, and what the test suites use (the default)
#	ci		the same, and a second compiler and the static checkers
#
# Each need is probed by what it is used for, not by its package, so a
# PostgreSQL built from source (PG_CONFIG=/path/to/pg_config) counts as well as
# Debian's.  Where nothing is missing the script says nothing and touches
# neither apt nor the network.
#
# A browser and the Prometheus exporters are wanted by two tests, which say so
# and are skipped without them: where those cannot be had, the rest goes on.
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
	have cppcheck || echo cppcheck
	have shellcheck || echo shellcheck
}

# What tests can do without, but had better not.
wanted()
{
	[[ $level != build ]] || return 0
	have chromium || have chromium-browser || have google-chrome || echo chromium
	have prometheus-postgres-exporter || echo prometheus-postgres-exporter
	have prometheus-sql-exporter || echo prometheus-sql-exporter
	have promtool || echo prometheus
}

case $level in
	build | test | ci) ;;
	*)
		echo "usage: install-deps.sh [build|test|ci]" >&2
		exit 2
		;;
esac

if [[ $pg_config == */* && ! -x $pg_config ]]; then
	echo "PG_CONFIG is \"$pg_config\", and there is no such program." >&2
	exit 1
fi

mapfile -t packages < <(missing | sort -u)
mapfile -t extras < <(wanted)
[[ ${#packages[@]} -eq 0 && ${#extras[@]} -eq 0 ]] && exit 0

# do_without: go on if nothing but extras is missing.
do_without()
{
	[[ ${#packages[@]} -eq 0 ]] || return 0
	echo "not installed, so that some tests are skipped: ${extras[*]}" >&2
	exit 0
}

have apt-get || do_without
if ! have apt-get; then
	echo "missing, and there is no apt-get to install it: ${packages[*]}" >&2
	exit 1
fi
as_root=()
if [[ $(id -u) -ne 0 ]]; then
	have sudo || do_without
	if ! have sudo; then
		echo "missing: ${packages[*]//PG/$(debian_major)}" >&2
		echo "Install them, or run this as root or as a user with sudo." >&2
		exit 1
	fi
	as_root=(sudo)
fi

log=$(mktemp)
no_cluster=/etc/postgresql-common/createcluster.d/eventstore-install.conf
no_services=/usr/sbin/policy-rc.d
placed=
refusing=
finish()
{
	rm -f "$log"
	[[ -z $refusing ]] || "${as_root[@]}" rm -f "$no_services"
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
run_quietly apt-get -q -o Acquire::Retries=3 update || { [[ ${#packages[@]} -gt 0 ]] || do_without; exit 1; }
major=$(debian_major)
packages=("${packages[@]//PG/$major}")

if [[ " ${packages[*]} " == *" postgresql-$major "* && ! -e $no_cluster ]]; then
	"${as_root[@]}" mkdir -p "${no_cluster%/*}"
	placed=yes
	echo "create_main_cluster = false" | "${as_root[@]}" tee "$no_cluster" >/dev/null
fi
# install PACKAGE...
install()
{
	echo "installing with apt: $*"
	run_quietly apt-get -q -y -o Acquire::Retries=3 -o Dpkg::Use-Pty=0 \
		install --no-install-recommends "$@"
}

[[ ${#packages[@]} -eq 0 ]] || install "${packages[@]}"

mapfile -t packages < <(missing | sort -u)
if [[ ${#packages[@]} -gt 0 ]]; then
	echo "still missing after the installation, for \"$pg_config\": ${packages[*]//PG/$major}" >&2
	exit 1
fi

# Their packages would start services, which nobody here has asked for.
if [[ ${#extras[@]} -gt 0 && ! -e $no_services ]]; then
	refusing=yes
	printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$no_services" >/dev/null
	"${as_root[@]}" chmod 755 "$no_services"
fi
[[ ${#extras[@]} -eq 0 ]] || install "${extras[@]}" || do_without
