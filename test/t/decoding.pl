# The output plugin beyond one session: a consumer that is killed, a server
# that is restarted and crashes, prepared transactions, transactions larger
# than memory, and several databases.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EsTest;
use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $node = new_store(
	'main', q(
logical_decoding_work_mem = 64kB
max_prepared_transactions = 5
max_replication_slots = 10
max_wal_senders = 10
shared_buffers = 16MB
), allows_streaming => 'logical');

sub create_slot
{
	my ($slot, $dbname, $two_phase) = @_;

	$node->safe_psql($dbname // 'postgres',
		sprintf q(SELECT pg_create_logical_replication_slot('%s', 'eventstore', false, %s)),
		$slot, $two_phase ? 'true' : 'false');
}

# Start a consumer that appends what it is sent to a file.
my $consumers = 0;

sub consumer_start
{
	my ($slot, $file, %params) = @_;
	my @until = $params{until} ? ('--endpos', $params{until}) : ();
	my @options = map { ('-o', $_) } @{ $params{options} // [] };
	my $consumer = { out => '', err => '' };

	$consumer->{run} = IPC::Run::start(
		[
			$node->installed_command('pg_recvlogical'),
			'-d', $node->connstr($params{dbname} // 'postgres'),
			'--slot', $slot, '--start', '--no-loop',
			'--fsync-interval=1', '--status-interval=1',
			@until, @options, '-f', $file
		],
		'>', \$consumer->{out}, '2>', \$consumer->{err},
		IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	return $consumer;
}

sub lines
{
	my ($file) = @_;

	return -e $file ? split /\n/, slurp_file($file) : ();
}

# Take all that there is until now.
sub consume
{
	my ($slot, $file, %params) = @_;
	my $until = $node->safe_psql('postgres', 'SELECT pg_current_wal_insert_lsn()');
	my $consumer;

	# Something for the stream to end behind.
	$node->safe_psql('postgres', 'SELECT txid_current()');
	$consumer = consumer_start($slot, $file, %params, until => $until);
	ok(IPC::Run::finish($consumer->{run}), "$slot: all is taken") or diag $consumer->{err};
	return lines($file);
}

sub positions
{
	return join ' ', map { decode_json($_)->{position} } @_;
}

# ----- kills, restarts, crashes -----

# Whoever takes each line as it comes must have every event, and for each
# stream's versions meet none before the one in front of it.
sub nothing_is_missing
{
	my ($name, @lines) = @_;
	my (%got, %version, $torn, @disorder);

	foreach my $line (@lines)
	{
		my $event = eval { decode_json($line) };

		# A consumer that was killed may leave half a line behind.
		if (!$event)
		{
			$torn++;
			next;
		}
		my $at = $version{ $event->{stream_id} } // 0;
		push @disorder, $line if $event->{version} > $at + 1;
		$version{ $event->{stream_id} } = $event->{version} if $event->{version} > $at;
		$got{ $event->{event_id} } = 1;
	}
	my @there = split /\n/, $node->safe_psql('postgres', 'SELECT event_id FROM es_event');
	my %there = map { $_ => 1 } @there;

	is(scalar(grep { !$got{$_} } @there), 0, "$name: every event has come (" . @there . ' events, ' . @lines . ' lines, ' . ($torn // 0) . ' torn)');
	is(scalar(grep { !$there{$_} } keys %got), 0, "$name: and nothing that is no event");
	is("@disorder", '', "$name: each stream in order");
}

my $file = $node->basedir . '/lines';
create_slot('kills');
my $load = start_load($node, 4, 4);
my $running = 1;
my $kills = 0;
while ($running)
{
	my $before = -s $file // 0;
	my $consumer = consumer_start('kills', $file, options => ['format=plain']);

	wait_until('the consumer to be sent something',
		sub { $running = $running && is_running($load); return !$running || (-s $file // 0) > $before });
	usleep(rand 300_000);
	$consumer->{run}->kill_kill(grace => 0);
	eval { IPC::Run::finish($consumer->{run}) };
	# end a line that was cut off
	append_to_file($file, "\n");
	wait_until('the slot to be free', sub {
		$node->safe_psql('postgres', q(SELECT NOT active FROM pg_replication_slots WHERE slot_name = 'kills')) eq 't' });
	$kills++;
}
finish_load($load);
nothing_is_missing("a consumer that is killed $kills times",
	grep { $_ ne '' } consume('kills', $file, options => ['format=plain']));

# The slot knows what was confirmed; a crash may make it forget the last of it.
$node->safe_psql('postgres', q(SELECT count(es_append('restart-1', 'Happened', '{}')) FROM generate_series(1, 100)));
$node->restart;
nothing_is_missing('a restart', grep { $_ ne '' } consume('kills', $file, options => ['format=plain']));
$node->safe_psql('postgres', q(SELECT count(es_append('crash-' || i % 3, 'Happened', '{}')) FROM generate_series(1, 100) i));
$load = psql_start($node, join '', map { "SELECT es_append('crash-$_', 'Happened', '{}');\n" } (0 .. 2) x 2000);
my $consumer = consumer_start('kills', $file, options => ['format=plain']);
my $size = -s $file;
wait_until('the consumer to be sent some of it', sub { -s $file > $size + 30_000 });
crash($node);
psql_finish($load);
eval { IPC::Run::finish($consumer->{run}) };
append_to_file($file, "\n");
$node->start;
nothing_is_missing('a crash', grep { $_ ne '' } consume('kills', $file, options => ['format=plain']));
$node->safe_psql('postgres', q(SELECT pg_drop_replication_slot('kills')));

# ----- prepared transactions -----

# Whatever the slot was made for, a prepared event is no fact yet.
create_slot('one_phase');
create_slot('two_phase', 'postgres', 1);
$node->safe_psql(
	'postgres', q(
	BEGIN; SELECT es_append('prepared-1', 'Kept', '{}'); PREPARE TRANSACTION 'kept';
	BEGIN; SELECT es_append('prepared-2', 'Undone', '{}'); PREPARE TRANSACTION 'undone';
	SELECT es_append('prepared-3', 'Plain', '{}');));
my $types = q(SELECT string_agg(data::jsonb ->> 'type', ' ') FROM pg_logical_slot_get_changes('%s', NULL, NULL));
foreach my $slot (qw(one_phase two_phase))
{
	is($node->safe_psql('postgres', sprintf $types, $slot), 'Plain', "$slot: what is prepared is not sent");
}
$node->restart;
$node->safe_psql('postgres', q(ROLLBACK PREPARED 'undone'));
$node->safe_psql('postgres', q(COMMIT PREPARED 'kept'));
foreach my $slot (qw(one_phase two_phase))
{
	is($node->safe_psql('postgres', sprintf $types, $slot), 'Kept', "$slot: until it is committed, after a restart");
	$node->safe_psql('postgres', "SELECT pg_drop_replication_slot('$slot')");
}

# ----- larger than memory -----

# Private memory of a process, in kilobytes.
sub private_memory
{
	my ($pid) = @_;
	my ($kb) = (-e "/proc/$pid/status" ? slurp_file("/proc/$pid/status") : '') =~ /^RssAnon:\s+(\d+)/m;

	return $kb // 0;
}

# Count what one large transaction of so many events makes the sender grow by.
sub sender_growth
{
	my ($events) = @_;
	my $big = $node->basedir . "/big$events";
	my ($most, $first, $pid) = (0, 0);

	create_slot('big');
	my $consumer = consumer_start('big', $big, options => ['format=cloudevents']);
	$node->safe_psql('postgres', q(SELECT es_append('big-0', 'First', '{}')));
	wait_until('the first event', sub { -s $big });
	$pid = $node->safe_psql('postgres', q(SELECT active_pid FROM pg_replication_slots WHERE slot_name = 'big'));
	$first = private_memory($pid);
	# In parts of 50,000, as savepoints, one of which is rolled back.
	$node->safe_psql('postgres', sprintf q(
		BEGIN;
		SELECT es_append_batch('big-1', array_fill('Big'::text, ARRAY[%1$d]), array_fill(to_jsonb(repeat('x', 300)), ARRAY[%1$d]),
			metadata => array_fill('{"user": "u", "deep": {"a": 1}}'::jsonb, ARRAY[%1$d]));
		SAVEPOINT s;
		SELECT es_append_batch('big-1', array_fill('Undone'::text, ARRAY[1000]), array_fill('{}'::jsonb, ARRAY[1000]));
		ROLLBACK TO s;
		SAVEPOINT t;
		SELECT es_append('big-1', 'Last', '{}');
		COMMIT), $events);
	wait_until('the last event', sub {
		my $now = private_memory($pid);
		$most = $now if $now > $most;
		return -s $big > 300 * $events && `tail -n 1 '$big'` =~ /"type":"Last"/; });
	$consumer->{run}->signal('INT');
	eval { IPC::Run::finish($consumer->{run}) };
	my @lines = lines($big);
	is(scalar(@lines), $events + 2, "$events events in one transaction arrive, without those rolled back");
	is(scalar(grep { /Undone/ } @lines), 0, 'those rolled back are not among them');
	wait_until('the slot to be free', sub {
		$node->safe_psql('postgres', q(SELECT NOT active FROM pg_replication_slots WHERE slot_name = 'big')) eq 't' });
	$node->safe_psql('postgres', q(SELECT pg_drop_replication_slot('big')));
	unlink $big;
	return ($most - $first);
}

SKIP:
{
	skip 'no /proc to read the memory of a process from', 2 unless -e "/proc/$$/status";

	my $small = sender_growth(2_000);
	my $large = sender_growth(40_000);
	cmp_ok($large, '<', $small + 6 * 1024, "twenty times the events do not take more memory ($small kB, $large kB)");
}

# ----- several databases, other plugins' company -----

$node->safe_psql('postgres', 'CREATE DATABASE second');
$node->safe_psql('second', 'CREATE SCHEMA other; CREATE EXTENSION eventstore SCHEMA other');
create_slot('first_db');
create_slot('second_db', 'second');
$node->safe_psql('postgres', q(SELECT es_append('here-1', 'Here', '{}')));
$node->safe_psql('second', q(SELECT other.es_append('there-1', 'There', '{}')));
$node->safe_psql('postgres', q(SELECT es_append('here-1', 'Here', '{}')));
my $there = $node->basedir . '/there';
is(join(' ', map { decode_json($_)->{source} . ' ' . decode_json($_)->{subject} } consume('second_db', $there, dbname => 'second')),
	'postgresql:///second there-1', 'each database has a store of its own');
is($node->safe_psql('postgres', sprintf $types, 'first_db'), 'Here Here', 'and a slot tells of its own only');
is($node->safe_psql('second', q(SELECT data::jsonb ->> 'source' FROM pg_logical_slot_peek_changes('second_db', NULL, NULL))),
	'', 'what was sent and confirmed is not sent again');

# A database's own source, to a walsender, which has no other way to be told.
$node->safe_psql('second', q(ALTER DATABASE second SET eventstore.source = 'urn:second'));
$node->safe_psql('second', q(SELECT other.es_append('there-1', 'Again', '{}')));
is(decode_json((consume('second_db', $there, dbname => 'second'))[-1])->{source}, 'urn:second', 'with a source of its own');

# A consumer's mistake.
$consumer = consumer_start('first_db', $file, options => ['formt=plain']);
IPC::Run::finish($consumer->{run});
like($consumer->{err}, qr/unrecognized option "formt"/, 'an unknown option is an error');

$consumer = consumer_start('first_db', $file, options => ['types']);
IPC::Run::finish($consumer->{run});
like($consumer->{err}, qr/option "types" needs a value/, 'and so is one without a value');

$node->stop;
done_testing();
