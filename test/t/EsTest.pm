# What several of the TAP tests need: nodes with a store, load, crashes.
package EsTest;

use strict;
use warnings;

use Exporter 'import';
use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

our @EXPORT = qw(new_store wait_until crash query_quietly psql_start psql_finish
  start_load is_running finish_load store_is_sound store_hash
  sqlstate_is ask_server report_figures);

# A running node with the extension in database postgres.  Settings are lines
# of postgresql.conf; allows_streaming and the like go to init.
sub new_store
{
	my ($name, $settings, %init) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);

	$node->init(%init, extra => [ '--encoding=UTF8', '--no-locale', @{ $init{extra} // [] } ]);
	$node->append_conf('postgresql.conf', <<CONF . ($settings // ''));
autovacuum = off
deadlock_timeout = 50ms
CONF
	trust_plugin($node);
	$node->start;
	$node->safe_psql('postgres', 'CREATE EXTENSION eventstore');
	return $node;
}

# Newer minor releases load only those output plugins that they are told of.
sub trust_plugin
{
	my ($node) = @_;
	my $postgres = $node->installed_command('postgres');

	$node->append_conf('postgresql.conf', "output_plugin_libraries = 'pgoutput, eventstore'")
	  if qx('$postgres' --describe-config) =~ /^output_plugin_libraries\b/m;
}

# Poll until the condition holds; dies after the usual time-out.
sub wait_until
{
	my ($what, $condition) = @_;
	my $end = time + $PostgreSQL::Test::Utils::timeout_default;

	until ($condition->())
	{
		die "timed out waiting for $what" if time > $end;
		usleep(10_000);
	}
}

# Those of the processes that still run, zombies left out.
sub running
{
	my $list = join ',', @_;

	return grep { !/^\s*Z/ } split /\n/, `ps -o stat= -p $list`;
}

# Take the whole server down without a warning: the postmaster first, so that
# it can neither clean up nor start anybody, then the children it had.  Ends
# when all are dead.  They may stay on as zombies until somebody reaps them,
# so the lock files, which only name a process id, go too.
sub crash
{
	my ($node) = @_;
	my $lock_file = $node->data_dir . '/postmaster.pid';
	my ($postmaster) = slurp_file($lock_file) =~ /^(\d+)/;
	my @children;

	kill 'STOP', $postmaster;
	@children = split ' ', `ps -o pid= --ppid $postmaster`;
	$node->kill9;
	kill 'KILL', @children;
	wait_until('the server\'s processes to be gone',
		sub { !running($postmaster, @children) });
	unlink $lock_file, $node->host . '/.s.PGSQL.' . $node->port . '.lock';
}

# A query of a background session that is asked so often that the log need not
# tell of each time.
sub query_quietly
{
	my ($session, $query) = @_;

	no warnings 'redefine';
	local *PostgreSQL::Test::BackgroundPsql::note = sub { };
	return $session->query_safe($query);
}

# Start psql on a script, which may contain anything psql knows.  Answers a
# handle for psql_finish.  Goes by files, so that psql runs freely whatever
# the test is doing meanwhile.
my $psql_count = 0;

sub psql_start
{
	my ($node, $script, %params) = @_;
	my $file = $node->basedir . '/psql' . ++$psql_count;
	my $options = $params{options} // '';
	my $psql = { file => $file };

	append_to_file("$file.sql", $script);
	$psql->{run} = IPC::Run::start(
		[
			$node->installed_command('psql'), '-XAtq',
			'-v', 'ON_ERROR_STOP=1',
			'-v', 'VERBOSITY=verbose',
			'-d', $node->connstr($params{dbname} // 'postgres')
			  . " options='$options'",
			'-f', "$file.sql"
		],
		'<', \undef, '>', "$file.out", '2>', "$file.err",
		IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	return $psql;
}

# Wait for psql to end; answers whether it succeeded, what it printed and
# what it complained about.
sub psql_finish
{
	my ($psql) = @_;
	my $ok = IPC::Run::finish($psql->{run});

	return ($ok, slurp_file("$psql->{file}.out"),
		slurp_file("$psql->{file}.err"));
}

# Writers at their worst, as pgbench scripts with a weight.  Each transaction
# touches its streams in ascending order, so that there are no deadlocks.
my %hostile = (
	'append@4' => <<'SQL',
\set a random(1, 20)
\set pause random(0, 3000)
BEGIN;
SELECT es_append('low-' || :a, 'Single', '{"by": "append"}');
\sleep :pause us
COMMIT;
SQL
	'several@4' => <<'SQL',
\set a random(1, 20)
\set b random(1, 20)
\set pause random(0, 3000)
BEGIN;
SELECT es_append('low-' || :a, 'First', '{"by": "several"}');
\sleep :pause us
SELECT es_append('low-' || :a, 'Second', '{"by": "several"}');
\sleep :pause us
SELECT es_append('top-' || :b, 'Third', '{"by": "several"}');
\sleep :pause us
COMMIT;
SQL
	'savepoint@3' => <<'SQL',
\set a random(1, 20)
\set pause random(0, 3000)
BEGIN;
SAVEPOINT one;
SELECT es_append('low-' || :a, 'Undone', '{"by": "savepoint"}');
\sleep :pause us
ROLLBACK TO SAVEPOINT one;
\sleep :pause us
SELECT es_append('low-' || :a, 'Kept', '{"by": "savepoint"}');
SAVEPOINT two;
SELECT es_append('top-' || :a, 'Kept', '{"by": "savepoint"}');
RELEASE SAVEPOINT two;
\sleep :pause us
COMMIT;
SQL
	'rollback@2' => <<'SQL',
\set a random(1, 20)
\set pause random(0, 3000)
BEGIN;
SELECT es_append('low-' || :a, 'Undone', '{"by": "rollback"}');
\sleep :pause us
ROLLBACK;
SQL
	'batch@2' => <<'SQL',
\set a random(1, 20)
\set pause random(0, 3000)
BEGIN;
SELECT es_append_batch('low-' || :a, array_fill('Batched'::text, ARRAY[5]),
	array_fill('{"by": "batch"}'::jsonb, ARRAY[5]));
\sleep :pause us
COMMIT;
SQL
	'insert@2' => <<'SQL',
\set a random(1, 20)
BEGIN;
INSERT INTO es_event (stream_id, event_type, data)
	SELECT 'top-' || :a, 'Inserted', '{"by": "insert"}' FROM generate_series(1, 3);
\sleep 1 ms
COMMIT;
SQL
	'copy@1' => <<'SQL',
COPY es_event (stream_id, event_type, data) FROM PROGRAM
	'printf "top-%s\tCopied\t{\"by\": \"copy\"}\n" 1 2 2 3';
SQL
);

# Start so many hostile writers for so many seconds, with options of pgbench.
sub start_load
{
	my ($node, $writers, $seconds, @options) = @_;
	my @scripts;
	my $load = { out => '', err => '' };

	foreach my $name (sort keys %hostile)
	{
		my ($base, $weight) = split /@/, $name;
		my $file = $node->basedir . "/$base.sql";

		unlink $file;
		append_to_file($file, $hostile{$name});
		push @scripts, '-f', "$file\@$weight";
	}
	$load->{run} = IPC::Run::start(
		[
			$node->installed_command('pgbench'), '-n',
			'-c', $writers,
			'-T', $seconds,
			'--max-tries=100', @options, @scripts,
			$node->connstr('postgres')
		],
		'>', \$load->{out}, '2>', \$load->{err},
		IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	return $load;
}

# Are the writers still at it?
sub is_running
{
	my ($load) = @_;

	$load->{run}->pump_nb;
	return $load->{run}->pumpable;
}

# Wait for the writers to end; all of them must have done so without an error.
sub finish_load
{
	my ($load) = @_;
	my $ok = IPC::Run::finish($load->{run});
	my ($transactions) = $load->{out} =~ /actually processed: (\d+)/;

	is( $load->{err} =~ s/^pgbench.*(?:\n|\z)//mgr
		  . ($load->{out} =~ /failed transactions: ([1-9].*)/ ? $1 : '')
		  . ($ok ? '' : "pgbench failed: $load->{err}"),
		'', "the writers end without an error ($transactions transactions)");
}

# es_check() finds nothing wrong with the store, whatever projections do, and
# the version runs are counted once more here.
sub store_is_sound
{
	my ($node, $name, %params) = @_;
	my $dbname = $params{dbname} // 'postgres';

	is( $node->safe_psql(
			$dbname, q(SELECT * FROM es_check() WHERE status <> 'ok'
				AND check_name NOT IN ('projections', 'parked events'))),
		'', "$name: es_check() finds nothing");
	is( $node->safe_psql(
			$dbname, q(SELECT stream_id FROM es_event_all GROUP BY stream_id
				HAVING min(version) <> 1 OR max(version) <> count(*))),
		'', "$name: versions run");
}

# One line that says all about a store: counts, places, every row, what is
# written down, and how far the sequence is.
sub store_hash
{
	my ($node, $dbname) = @_;

	return $node->safe_psql(
		$dbname, q(
		SELECT count(*), count(DISTINCT stream_id), min(position), max(position),
			(SELECT last_value FROM es_event_position_seq),
			(SELECT es_settled::text FROM es_settled),
			md5(string_agg(es_event_all::text, E'\n' ORDER BY position))
		FROM es_event_all));
}

# Ask a server that may just be coming up again.
sub ask_server
{
	my ($node, $sql, $dbname) = @_;
	my $answer;

	wait_until('the server', sub {
		my ($ret, $out, $err) = eval { $node->psql($dbname // 'postgres', $sql, on_error_stop => 1) };

		die $err if defined $ret && $ret == 3;
		$answer = $out;
		return defined $ret && $ret == 0;
	});
	return $answer;
}

# The line that `make reliability` makes its table of: how many faults there
# were, and how many events were found lost, doubled and out of order.
sub report_figures
{
	my (%figures) = @_;

	note 'figures: ' . join ' ', map { "$_=" . ($figures{$_} // 0) } qw(faults lost doubled reordered);
}

# The statement fails with this SQLSTATE.
sub sqlstate_is
{
	my ($node, $sql, $sqlstate, $name, %params) = @_;
	my ($ret, $out, $err) = $node->psql($params{dbname} // 'postgres',
		"\\set VERBOSITY verbose\n$sql");

	like($err, qr/ERROR:  $sqlstate:/, $name);
}

1;
