# One transaction may append to any number of streams without filling the lock
# table, and two that do so at once do not spoil each other's work.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EsTest;
use Test::More;

my $streams = 100_000;
my $node = new_store('main',
	"max_locks_per_transaction = 10\nmax_connections = 10\n");

# What the shared lock table was made for; it may hold some more.
my $slots = $node->safe_psql(
	'postgres', q(
	SELECT current_setting('max_locks_per_transaction')::int *
		(current_setting('max_connections')::int +
		 current_setting('autovacuum_max_workers')::int + 1 +
		 current_setting('max_worker_processes')::int +
		 current_setting('max_wal_senders')::int)));
cmp_ok($slots, '<', $streams / 100, "the lock table is small ($slots)");

# Many streams, by every route.
my %route = (
	'function' => "DO \$\$ BEGIN
		FOR i IN 1..$streams LOOP
			PERFORM es_append('function-' || i, 'Imported', '{}');
		END LOOP;
	END \$\$",
	'insert' => "INSERT INTO es_event (stream_id, event_type, data)
		SELECT 'insert-' || i, 'Imported', '{}' FROM generate_series(1, $streams) i",
	'copy' => "COPY es_event (stream_id, event_type, data) FROM PROGRAM
		'seq $streams | sed \"s/.*/copy-&\\tImported\\t{}/\"'");

foreach my $name (sort keys %route)
{
	my ($ret, undef, $err) = $node->psql('postgres', $route{$name});

	is($err, '', "$streams streams in one transaction by $name");
	is( $node->safe_psql(
			'postgres',
			"SELECT count(DISTINCT stream_id) FROM es_event WHERE es_category(stream_id) = '$name'"
		),
		$streams, 'all of them are there');
}

# Who insists on single locks runs out of them, cleanly.
foreach my $name (sort keys %route)
{
	my $before = store_hash($node, 'postgres') =~ s/\|\d+\|\|/||/r;

	sqlstate_is($node,
		"SET eventstore.max_stream_locks = 1000000;"
		  . $route{$name} =~ s/$name-/again-/r,
		'53200', "with single locks the lock table fills by $name");
	is(store_hash($node, 'postgres') =~ s/\|\d+\|\|/||/r,
		$before, 'and nothing is left behind');
}
$node->safe_psql('postgres', q(SELECT es_append('after-1', 'Appended', '{}', 0)));
is( $node->safe_psql('postgres',
		q(SELECT count(*) FROM pg_locks WHERE locktype = 'advisory')),
	'0', 'no lock either');

# Two importers at once.  Both hold some streams already when they come to the
# limit, and then each wants the other out: one has to give up.
sub import_sql
{
	my ($name, $first, $last) = @_;

	return "INSERT INTO es_event (stream_id, event_type, data)
		SELECT 'shared-' || i, '$name', '{}' FROM generate_series($first, $last) i;\n";
}

sub imported
{
	return $node->safe_psql('postgres',
		"SELECT count(*) FROM es_event WHERE event_type = '$_[0]'");
}

my $barrier = $node->background_psql('postgres');
my %run;

$barrier->query_safe('SELECT pg_advisory_lock(1)');
foreach my $name ('left', 'right')
{
	$run{$name} = psql_start($node,
		"BEGIN;\n"
		  . import_sql($name, $name eq 'left' ? (1, 50) : (51, 100))
		  . "SELECT pg_advisory_xact_lock_shared(1);\n"
		  . import_sql($name, 101, 2050)
		  . 'COMMIT;');
}
$node->poll_query_until(
	'postgres', q(SELECT count(*) = 2 FROM pg_locks
		WHERE locktype = 'advisory' AND objid = 1 AND objsubid = 1 AND NOT granted))
  or die 'the importers do not come to the barrier';
$barrier->query_safe('SELECT pg_advisory_unlock(1)');
$barrier->quit;

my $won = 0;
foreach my $name (sort keys %run)
{
	my ($ok, undef, $err) = psql_finish($run{$name});

	ok($ok || $err =~ /ERROR:  40P01:/, "$name importer: success or 40P01")
	  or diag $err;
	is(imported($name), $ok ? 2000 : 0, 'all or nothing');
	$won += $ok;
}
is($won, 1, 'one of the two succeeds');

# An import that shuts the gate first thing waits for its turn.
%run = map {
	$_ => psql_start($node,
		"BEGIN;\nSET LOCAL eventstore.max_stream_locks = 0;\n"
		  . import_sql($_, 1, 1000)
		  . import_sql($_, 1001, 2000)
		  . 'COMMIT;')
} 'first', 'second', 'third';
foreach my $name (sort keys %run)
{
	my ($ok, undef, $err) = psql_finish($run{$name});

	is($err, '', "$name importer, who shuts the gate at once: no error");
	is(imported($name), 2000, 'all is there');
}

# An ordinary append to a stream that an importer holds waits for it; it must
# not stand in the importer's way at the gate.
my $importer = $node->background_psql('postgres');
my $appender = $node->background_psql('postgres');

$importer->query_safe(q(BEGIN; SELECT es_append('shared-1', 'Held', '{}')));
$appender->query_until(qr/begun/,
	q(\echo begun
SELECT es_append('shared-1', 'Waited', '{}') > 0;
\echo done
));
ok( $node->poll_query_until(
		'postgres', q(SELECT count(*) = 1 FROM pg_locks WHERE NOT granted AND locktype = 'advisory')),
	'an append waits for the stream');
$importer->query_safe(
	q(INSERT INTO es_event (stream_id, event_type, data)
	SELECT 'shared-' || i, 'Held', '{}' FROM generate_series(1, 2000) i));
$importer->query_safe('COMMIT');
like($appender->query_until(qr/done/, ''), qr/^t$/m,
	'the importer comes through, and then the append');
$importer->quit;
$appender->quit;

store_is_sound($node, 'store');
report_figures(faults => 4);
$node->stop;
done_testing();
