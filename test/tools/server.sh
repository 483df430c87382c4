# server.sh: a throw-away server, to be sourced.
#
#	server_start	make a cluster below ES_WORK and start it, on a unix socket
#					of its own: no port is taken, so other clusters do not matter
#	server_stop		stop it; its directory, ES_WORK/server, stays for a look
#
# server_start sets PGHOST, PGUSER and PATH, so that psql and its kin find the
# server and fit it.  More settings can be appended to server_settings before,
# or be in ES_SETTINGS, separated by semicolons.  ES_POSTGRES names a script of
# this tree to start in place of postgres; ES_PRELOAD a library to load first.
# shellcheck shell=bash

# Everything is thrown away, so nothing needs to reach the disk.
server_settings="
fsync = off
listen_addresses = ''
max_prepared_transactions = 20
wal_level = logical
log_line_prefix = '%m [%p] %a '
"

server_start()
{
	local bindir dir=$ES_WORK/server

	bindir=$("$PG_CONFIG" --bindir)
	export PATH=$bindir:$PATH PGHOST=$dir/socket PGUSER=postgres
	mkdir "$dir" "$PGHOST"
	if ! initdb -D "$dir/data" -U "$PGUSER" -A trust -N -E UTF8 --locale=C >"$dir/initdb.log" 2>&1; then
		cat "$dir/initdb.log"
		return 1
	fi
	{
		echo "unix_socket_directories = '$PGHOST'$server_settings"
		tr ';' '\n' <<<"${ES_SETTINGS:-}"
		# Newer minor releases load only those output plugins that they are told of.
		if postgres --describe-config 2>/dev/null | grep '^output_plugin_libraries' >/dev/null; then
			echo "output_plugin_libraries = 'pgoutput, eventstore'"
		fi
	} >>"$dir/data/postgresql.conf"
	if ! LD_PRELOAD=${ES_PRELOAD:-} pg_ctl -D "$dir/data" -l "$dir/server.log" -w -t 300 \
		${ES_POSTGRES:+-p "$PWD/$ES_POSTGRES"} start >"$dir/pg_ctl.log" 2>&1; then
		cat "$dir/pg_ctl.log" "$dir/server.log"
		return 1
	fi
}

server_stop()
{
	pg_ctl -D "$ES_WORK/server/data" -m fast -w -t 60 stop >/dev/null 2>&1 || true
}
