#!/usr/bin/env bash
#
# quickstart.sh: build the extension, install it, and show it at work.
#
# Installs into the PostgreSQL that PG_CONFIG names, with sudo where its
# directories ask for it; then runs the bank example on a throw-away server,
# which is gone when this ends.  The tree is left as it was.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."

if [[ ${1:-} == show ]]; then
	# shellcheck source=test/tools/server.sh
	source test/tools/server.sh
	server_start
	createdb bank
	psql -X -d bank -v ON_ERROR_STOP=1 -f test/examples/bank.sql
	server_stop
	exit
fi

PG_CONFIG=${PG_CONFIG:-pg_config}
as_root=()
extensions=$("$PG_CONFIG" --sharedir)/extension
libraries=$("$PG_CONFIG" --pkglibdir)
if [[ ! -w $extensions || ! -w $libraries ]]; then
	as_root=(sudo)
fi
# The flags of the make that called would be taken for ours.
unset MAKEFLAGS MFLAGS MAKELEVEL

build=$(mktemp -d)
trap '"${as_root[@]}" rm -rf "$build"' EXIT
tar -c --mode=u+rwX --exclude=./.git --exclude='*.o' --exclude='*.so' --exclude='*.bc' --exclude=node_modules . |
	tar -C "$build" -x --no-same-owner

echo "building for $("$PG_CONFIG" --version)"
make -s -C "$build" -j2 PG_CONFIG="$PG_CONFIG"
echo "installing into $extensions"
"${as_root[@]}" make -s -C "$build" install PG_CONFIG="$PG_CONFIG" >/dev/null

echo "starting a throw-away server for the bank example"
echo
PG_CONFIG=$PG_CONFIG test/tools/sandbox.sh --installed test/tools/quickstart.sh show
echo
echo "The server is stopped. In a database of yours, begin with: CREATE EXTENSION eventstore;"
