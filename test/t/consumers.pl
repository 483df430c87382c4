# Consumers outside the database, those of test/examples, killed again and again
# while events are appended: into Redis Streams and NATS JetStream, each on the
# real server, and into a table of the same database.  Nothing may be lost, no
# event take effect twice, and the events of a stream keep their order.
#
# ES_KILLS is how often consumers of each kind are killed (34: with three kinds,
# a hundred together).  What is not installed is skipped, and said so.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EsTest;
use File::Copy;
use IPC::Run ();
use POSIX qw(WNOHANG);
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $kills = $ENV{ES_KILLS} // 34;
my $dir = PostgreSQL::Test::Utils::tempdir_short;

plan skip_all => 'node 18 or later is not here'
  unless (qx(node --version 2>&1) =~ /^v(\d+)/ && $1 >= 18);
copy($_, $dir)
  foreach glob("$FindBin::RealBin/../examples/{consumer-*.mjs,subscriber.mjs,package.json}"),
  "$FindBin::RealBin/consumers-sink.mjs";
my $npm = qx(cd '$dir' && npm install --no-audit --no-fund --no-package-lock --fetch-timeout=20000 --fetch-retries=1 2>&1);
plan skip_all => 'npm cannot install pg, redis and nats: ' . ($npm =~ s/\n.*//sr)
  unless $? == 0;

my %child;		# process id => what it is

# Start a program with its output in files; answers its process id.
sub spawn
{
	my ($name, @command) = @_;
	my $pid = fork // die "could not fork: $!";

	if ($pid == 0)
	{
		open STDIN, '<', '/dev/null';
		open STDOUT, '>>', "$dir/$name.out";
		open STDERR, '>>', "$dir/$name.err";
		chdir $dir;
		exec { $command[0] } @command;
		POSIX::_exit(127);
	}
	$child{$pid} = $name;
	return $pid;
}

# Signal a process and wait for its end; answers its status.
sub stop
{
	my ($pid, $signal) = @_;

	if (waitpid($pid, WNOHANG) == 0)
	{
		kill $signal, $pid;
		waitpid $pid, 0;
	}
	delete $child{$pid};
	return $?;
}

# Wait for the end of a process that was asked to end; answers its status.
sub ended
{
	my ($pid) = @_;
	my $end = time + 60;
	my $done;

	usleep(10_000) until ($done = waitpid($pid, WNOHANG)) != 0 || time > $end;
	return stop($pid, 'KILL') if $done == 0;
	delete $child{$pid};
	return $?;
}

# Nothing that was started here stays, however this ends.
END
{
	my $status = $?;
	stop($_, 'KILL') foreach keys %child;
	$? = $status;
}

sub installed
{
	my ($program) = @_;

	foreach my $place (split(/:/, $ENV{PATH}), '/usr/sbin', '/usr/local/sbin')
	{
		return "$place/$program" if -x "$place/$program";
	}
	return undef;
}

my $node = new_store('main', "max_connections = 50\n");
local %ENV = (%ENV, PGHOST => $node->host, PGPORT => $node->port, PGDATABASE => 'postgres',
	PGUSER => $node->safe_psql('postgres', 'SELECT current_user'));

# ----- what they write to -----

sub start_redis
{
	my $program = installed('redis-server') // return undef;

	$ENV{REDIS_URL} = "$dir/redis.sock";
	spawn('redis-server', $program, '--port', 0, '--unixsocket', $ENV{REDIS_URL},
		'--save', '', '--appendonly', 'no', '--dir', $dir);
	wait_until('redis-server', sub { -S $ENV{REDIS_URL} });
	return 1;
}

sub start_nats
{
	my $program = installed('nats-server') // return undef;
	my $ports;

	spawn('nats-server', $program, '-a', '127.0.0.1', '-p', -1, '-js', '-sd', "$dir/jetstream",
		'--ports_file_dir', $dir);
	wait_until('nats-server',
		sub { ($ports) = glob "$dir/nats-server_*.ports"; $ports && -s $ports });
	($ENV{NATS_URL}) = slurp_file($ports) =~ m{"(nats://127\.0\.0\.1:\d+)"};
	return 1;
}

my %kind = (
	pg => { there => 1 },
	redis => { there => start_redis() },
	nats => { there => start_nats() });
my @kinds = grep { $kind{$_}{there} } sort keys %kind;

$node->safe_psql('postgres',
	'CREATE TABLE activity (stream_id text PRIMARY KEY, events bigint NOT NULL, last_version bigint NOT NULL)');
$node->safe_psql('postgres',
	"SELECT es_create_subscription('$_', partitions => 4, max_attempts => NULL)")
  foreach @kinds;

# ----- kills -----

# Two of each kind share its subscription.
my %consumer;

sub start_consumer
{
	my ($kind, $n) = @_;

	$consumer{"$kind $n"} =
	  spawn("$kind-$n", 'node', "consumer-$kind.mjs", $kind, "$kind-$n", '2 s');
}

foreach my $kind (@kinds)
{
	start_consumer($kind, $_) foreach 1, 2;
}

my $load;
my %killed = map { $_ => 0 } @kinds;
my $unasked = '';

while (grep { $killed{$_} < $kills } @kinds)
{
	my @left = grep { $killed{$_} < $kills } @kinds;
	my $kind = $left[ rand @left ];
	my $n = 1 + int rand 2;

	finish_load($load) if $load && !is_running($load);
	$load = start_load($node, 3, 10, '--rate=60') if !$load || !is_running($load);
	usleep(rand 300_000);
	if (stop($consumer{"$kind $n"}, 'KILL') != 9)
	{
		$unasked .= "$kind-$n ended by itself\n";
		last;
	}
	$killed{$kind}++;
	start_consumer($kind, $n);
}
finish_load($load);

# Some only seem dead: stopped for longer than their lease, so that the others
# have gone on with their events, and then back with what they had in hand.
$load = start_load($node, 3, 6, '--rate=60');
sleep 1;
my @stopped = map { $consumer{"$_ 1"} } @kinds;
kill 'STOP', @stopped;
sleep 3;
kill 'CONT', @stopped;
finish_load($load);
is($unasked, '', 'no consumer ends but by being killed');
note('counted: ' . join(', ', map { "$killed{$_} kills of $_ consumers" } @kinds));

# ----- what arrived -----

my %stored;		# position => stream id, version, event id

foreach (split /\n/,
	$node->safe_psql('postgres', q(SELECT position, stream_id, version, event_id, es_stream_partition(stream_id, 4) FROM es_event)))
{
	my ($position, @event) = split /\|/;

	$stored{$position} = \@event;
}

sub caught_up
{
	my ($kind) = @_;

	return $node->safe_psql('postgres',
		"SELECT min(position) >= es_settled_position() AND sum(in_flight) = 0
			FROM es_subscription_partition WHERE subscription = '$kind'") eq 't';
}

foreach my $kind (@kinds)
{
	wait_until("$kind to catch up", sub { caught_up($kind) });
}
# Asked once: a second signal could meet a process on its way out.
kill 'TERM', values %consumer;
is(ended($consumer{$_}), 0, "$_ ends when it is asked to") foreach sort keys %consumer;

# Every event once, each stream in order.
sub arrived_once_in_order
{
	my ($kind) = @_;
	my (%seen, %version, $twice, $disorder, $wrong);
	my $known = 0;

	foreach (split /\n/, qx(cd '$dir' && node consumers-sink.mjs $kind))
	{
		my ($stream_id, $version, $position, $event_id, $place) = split /\t/;
		my $event = $stored{$position};

		$twice++ if $seen{$position}++;
		$disorder++ if $version != ++$version{$stream_id};
		$wrong++
		  if !$event || "$stream_id $version $event_id" ne "@$event[0 .. 2]"
		  || ($kind eq 'redis' && $place != $event->[3]);
	}
	$known += $_ foreach map { slurp_file("$dir/$kind-$_.out") =~ /(\d+) known/g } 1, 2;
	is(scalar(keys %seen), scalar(keys %stored), "$kind: no event is lost");
	is($twice, undef, "$kind: none is there twice ($known came again and were known)");
	is($disorder, undef, "$kind: each stream is in order");
	is($wrong, undef, "$kind: they are the store's events");
	return;
}

ok($killed{$_} >= $kills, "$_: killed $killed{$_} times, while " . scalar(keys %stored) . ' events were appended')
  foreach @kinds;
foreach my $kind ('redis', 'nats')
{
  SKIP:
	{
		skip "$kind-server is not installed: its consumer is not tested (apt-get install $kind-server)", 4
		  unless $kind{$kind}{there};
		arrived_once_in_order($kind);
	}
}
is( $node->safe_psql('postgres', q(
		SELECT count(*) FILTER (WHERE e.n IS DISTINCT FROM a.events OR e.last IS DISTINCT FROM a.last_version)
			FROM (SELECT stream_id, count(*) AS n, max(version) AS last FROM es_event GROUP BY 1) AS e
			FULL JOIN activity a USING (stream_id))),
	'0', 'pg: each event took effect once, in the order of its stream');
store_is_sound($node, 'store');

# ----- an event that cannot be dealt with -----

$node->safe_psql('postgres', q(
	SELECT es_append('ill-1', 'A', '{"poison": true}');
	SELECT es_append('ill-1', 'B', '{}');
	SELECT es_append('well-1', 'A', '{}')));
start_consumer('pg', 1);
wait_until('the event to be put aside', sub {
	$node->safe_psql('postgres', q(SELECT count(*) = 2 AND bool_or(reason = 'poisoned') FROM es_subscription_parked WHERE subscription = 'pg')) eq 't'
});
wait_until('the others', sub {
	$node->safe_psql('postgres', q(SELECT count(*) = 1 FROM activity WHERE stream_id = 'well-1')) eq 't'
});
is($node->safe_psql('postgres', q(SELECT count(*) FROM activity WHERE stream_id = 'ill-1')),
	'0', 'pg: behind an event that cannot be dealt with, its stream waits and no other');
is(stop($consumer{'pg 1'}, 'TERM'), 0, 'and the consumer goes on');

$node->stop;
done_testing();
