# Failover by Patroni: the leader of three nodes is killed under load, again and
# again.  With synchronous replication nothing acknowledged is lost, and
# subscribers and projections go on from their checkpoints without a gap or a
# double effect.  With replication that lags, what only the old leader had is
# gone, and nobody goes on from a place in it in silence.
#
#	ES_FAILOVERS	how many leaders are killed with synchronous replication (1; none set: skipped)
#	ES_FORKS		and how many whose last events no standby has (0)
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EsPatroni;
use EsTest qw(wait_until);
use IPC::Run ();
use List::Util qw(max sum);
use POSIX ();
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

my $missing = EsPatroni::missing();
plan skip_all => "$missing; install Debian's patroni and etcd-server" if $missing;

plan skip_all => 'make reliability runs it (ES_FAILOVERS, ES_FORKS)'
  unless defined $ENV{ES_FAILOVERS} || defined $ENV{ES_FORKS};
my $failovers = $ENV{ES_FAILOVERS} // 1;
my $forks = $ENV{ES_FORKS} // 0;
my $writers = 4;
my $cluster = EsPatroni->new;
my $dir = $cluster->{dir};
my $stop = "$dir/stop";

$cluster->query(<<'SQL');
CREATE EXTENSION eventstore;
SELECT es_store();
CREATE TABLE total (stream_id text PRIMARY KEY, n bigint, amount bigint);
CREATE TABLE mail (position bigint, event_id uuid);
SELECT es_create_projection('totals', tables => '{total}');
SELECT es_on('totals', 'Written', 'INSERT INTO total VALUES (event.stream_id, 1, (event.data->>''n'')::bigint)
	ON CONFLICT (stream_id) DO UPDATE SET n = total.n + 1, amount = total.amount + excluded.amount');
SELECT es_create_subscription('inside', from_position => 0, event_types => '{Written}');
SELECT es_create_subscription('outside', from_position => 0, event_types => '{Written}');
SQL

# ----- clients, each a process of its own -----

# Run a client until the file to stop it is there; it answers by its file.
my @clients;

sub start_client
{
	my ($name, $client) = @_;
	my $pid = fork() // die "fork: $!";

	if ($pid == 0)
	{
		srand(time ^ $$);
		open my $out, '>', "$dir/$name.out" or POSIX::_exit(1);
		$out->autoflush;
		eval { $client->($out); 1 } or print $out "failed|$@\n";
		POSIX::_exit(0);
	}
	push @clients, $pid;
}

# What a client told, as rows of fields; those of a kind.
sub told
{
	my ($name, $kind) = @_;

	return map { [ split /\|/ ] } grep { /^\Q$kind\E\|/ } split /\n/, slurp_file("$dir/$name.out");
}

# Appends, one transaction each, some rolled back.  What is not acknowledged is
# sent again with the id it had, until it is.
sub write_events
{
	my ($n, $out) = @_;
	my $count = 0;
	my @pending;

	while (!-e $stop || @pending)
	{
		push @pending, sprintf '%08x-0000-4000-8000-%012x', $n, $count++
		  while !-e $stop && @pending < 20;
		my (undef, $answer) = $cluster->try(join '', map {
			my $number = hex substr $_, -12;

			(rand() < 0.1 ? "BEGIN; SELECT es_append('undone-$n', 'Undone', '{}') \\g /dev/null\nROLLBACK;\n" : '')
			  . "SELECT 'acked', '$_', es_append('stream-$n', 'Written', '{\"n\": $number}', event_id => '$_'), extract(epoch FROM clock_timestamp()), current_setting('port');\n"
		} @pending);
		my @acked = grep { /^acked\|/ } split /\n/, $answer;
		print $out "$_\n" foreach @acked;
		splice @pending, 0, scalar @acked;
		usleep(20_000) if @pending;
	}
}

# A consumer whose effect is in the same transaction as its acknowledgement.
sub consume_inside
{
	my ($out) = @_;

	until (-e $stop)
	{
		my ($status, undef, $err) = $cluster->try(<<'SQL' x 10);
WITH delivery AS MATERIALIZED (SELECT * FROM es_fetch('inside', 'one', 50)),
	effect AS (INSERT INTO mail SELECT position, event_id FROM delivery)
SELECT es_ack('inside', min(token)) FROM delivery HAVING count(*) > 0;
SQL
		print $out "refused|", $err =~ s/\n.*//sr, "\n" if $status != 0 && $err =~ /ERROR/;
		usleep(50_000) if $status != 0;
	}
}

# A consumer elsewhere, which goes by positions and fetches in an epoch.  When
# that was left, it forgets what it was told above the place in the hint.
sub consume_outside
{
	my ($out) = @_;
	my $epoch = $cluster->query('SELECT epoch FROM es_store()');
	my $ack = 'NULL';

	until (-e $stop)
	{
		my ($status, $rows, $err) = $cluster->try(
			"SELECT 'told', position, event_id, token FROM es_fetch('outside', 'two', 100, ack => $ack, epoch => $epoch)");

		if ($status == 0)
		{
			$ack = $rows =~ /\|([^|\n]+)$/ ? "'$1'" : 'NULL';
			print $out "$rows\n" if $rows ne '';
			usleep(50_000) if $rows eq '';
			next;
		}
		$ack = 'NULL';
		if ($err =~ /55000: epoch \d+ was left[\s\S]*told above position (\d+)/)
		{
			print $out "forget|$1\n";
			(undef, my $now) = $cluster->try('SELECT epoch FROM es_store()');
			$epoch = $now if $now ne '';
		}
		elsif ($err =~ /ERROR/)
		{
			print $out "refused|", $err =~ s/\n.*//sr, "\n";
		}
		usleep(50_000);
	}
}

# ----- synchronous replication -----

my %down;
foreach my $n (1 .. $writers)
{
	start_client("writer$n", sub { write_events($n, @_) });
}
start_client('inside', \&consume_inside);
start_client('outside', \&consume_outside);

my @kills;
foreach my $round (1 .. $failovers)
{
	my $leader = $cluster->wait_healthy;
	my $whole = $round % 2 == 0;

	usleep(500_000 + int rand 1_500_000);
	my $when = $cluster->crash($leader, whole => $whole);
	wait_until('a new leader', sub {
		my $new = $cluster->leader;

		return 1 if $new && $new->{name} ne $leader->{name};
		usleep(100_000);
		return 0;
	});
	push @kills, [ $when, $leader->{port}, $whole, $cluster->leader->{name} ];
	$cluster->start_node($leader) if $whole;
}
$cluster->wait_healthy if $failovers > 0;
usleep(1_000_000);
append_to_file($stop, '');
waitpid $_, 0 foreach @clients;

# Downtime: from the kill to the first append that another server acknowledged.
my @acked = map { told("writer$_", 'acked') } 1 .. $writers;
foreach my $kill (@kills)
{
	my ($when, $port, $whole) = @$kill;
	my ($first) = sort { $a <=> $b } map { $_->[3] > $when && $_->[4] != $port ? $_->[3] - $when : () } @acked;

	push @{ $down{ $whole ? 'node' : 'server' } }, $first;
}
foreach my $what (sort keys %down)
{
	my @sorted = sort { $a <=> $b } @{ $down{$what} };

	note sprintf '%d times the %s was killed: appends stood still for %.1f s at least, %.1f s in the middle, %.1f s at most',
	  scalar @sorted, $what eq 'node' ? 'whole node' : 'server alone', $sorted[0], $sorted[ @sorted / 2 ], $sorted[-1];
}

# Nothing acknowledged is lost, nothing is there twice.
my %event;
foreach (split /\n/, $cluster->query(q(SELECT event_id, version, position FROM es_event WHERE event_type = 'Written')))
{
	my ($id, $version, $position) = split /\|/;
	$event{$id} = [ $version, $position ];
}
is(scalar(grep { !$event{ $_->[1] } } @acked), 0, @acked . " acknowledged appends in $failovers failovers, none lost");
is(scalar(grep { $event{ $_->[1] } && $event{ $_->[1] }[0] != $_->[2] } @acked), 0, 'each at the version that it was told');
is(scalar keys %event, scalar @acked, 'and none that was not acknowledged in the end');

# Async projection and subscribers.
my ($last) = $cluster->query(q(SELECT max(position) FROM es_event));
is($cluster->query("SELECT es_wait_for('totals', $last, '60 s')"), 't', 'the worker of the last leader runs the projection to the end');
note $cluster->query(q(SELECT 'projection: ' || p::text FROM es_stat_projection p));
note $cluster->query(q(SELECT 'check: ' || concat_ws(' | ', check_name, detail) FROM es_check() WHERE status <> 'ok'));
my $by_hand = q(SELECT stream_id, count(*), sum((data->>'n')::bigint) FROM es_event WHERE event_type = 'Written' GROUP BY 1 ORDER BY 1);
is($cluster->query('SELECT * FROM total ORDER BY 1'), $cluster->query($by_hand), 'each event is in the read model once');
is_deeply([ map { told($_, 'failed') } 'inside', 'outside', map { "writer$_" } 1 .. $writers ], [], 'no client failed');
is_deeply([ grep { $_->[1] !~ /57P0|25006|08/ } map { told($_, 'refused') } 'inside', 'outside' ], [], 'consumers meet no error but the failover itself');
unlink $stop;
wait_until('the consumer inside to be through', sub {
	$cluster->query(q(WITH delivery AS MATERIALIZED (SELECT * FROM es_fetch('inside', 'one')),
		effect AS (INSERT INTO mail SELECT position, event_id FROM delivery)
		SELECT es_ack('inside', min(token)) FROM delivery HAVING count(*) > 0));
	return $cluster->query(q(SELECT lag_events = 0 OR NOT EXISTS (SELECT FROM es_event e WHERE e.position > s.position AND e.event_type = 'Written') FROM es_stat_subscription s WHERE name = 'inside')) eq 't';
});
is($cluster->query(q(SELECT count(*), count(DISTINCT event_id), count(*) FILTER (WHERE NOT EXISTS (SELECT FROM es_event e WHERE e.event_id = m.event_id AND e.position = m.position)) FROM mail m)),
	@acked . '|' . @acked . '|0', 'the consumer inside: each event took effect once');

# The consumer outside: what it was told is true, in order, without a gap.
my ($known, $gaps, $false, $again) = (0, 0, 0, 0);
my @order = sort { $a <=> $b } map { $_->[1] } values %event;
my %index = map { $order[$_] => $_ } 0 .. $#order;
my %at = map { $event{$_}[1] => $_ } keys %event;
foreach (split /\n/, slurp_file("$dir/outside.out"))
{
	my ($kind, $position, $id) = split /\|/;

	if ($kind eq 'forget')
	{
		$known = max(grep({ $_ <= $position } @order), 0) if $position < $known;
		next;
	}
	next unless $kind eq 'told';
	$false++ if ($at{$position} // '') ne $id;
	$again++ if $position <= $known;
	my $next = $known == 0 ? $order[0] : $order[ $index{$known} + 1 ];
	$gaps++ if $position > $next;
	$known = max($known, $position);
}
is($false, 0, 'the consumer outside: what it was told stayed true');
is($gaps, 0, 'and nothing was left out');
cmp_ok($known, '>', 0, "it got to position $known, and was told $again events again");

# Standbys have the same log.
my $whole_log = q(SELECT count(*), md5(string_agg(position || ' ' || event_id, ',')) FROM es_read_all(0, NULL));
$cluster->query('SELECT es_settle()');
my $settled = $cluster->query('SELECT pg_current_wal_lsn()');
foreach my $node (grep { $_->{name} ne $cluster->leader->{name} } @{ $cluster->{nodes} })
{
	wait_until('replay', sub { $cluster->query("SELECT pg_last_wal_replay_lsn() >= '$settled'", $node) eq 't' });
	is($cluster->query($whole_log, $node), $cluster->query($whole_log), "standby $node->{name} reads the leader's log");
}
is($cluster->query(q(SELECT count(*) FROM es_check() WHERE status <> 'ok')), '0', 'es_check() finds nothing');

# ----- what only the old leader had -----

# Wait until all standbys have what the leader has.
sub caught_up
{
	my $leader = $cluster->leader;
	my $lsn = $cluster->query('SELECT pg_current_wal_lsn()', $leader);

	wait_until('standbys to catch up', sub {
		$cluster->query("SELECT count(*) FROM pg_stat_replication WHERE replay_lsn >= '$lsn' AND application_name LIKE 'node%'", $leader) eq '2';
	});
}

# Append in a session whose wait for the standby is cancelled; answers what it
# was warned of.
sub append_cancelled
{
	my ($leader, $sql) = @_;
	my ($out, $err) = ('', '');
	my $session = IPC::Run::start([ 'psql', '-XAtq', '-d', $cluster->connstr($leader), '-c', $sql ], '>', \$out, '2>', \$err);

	wait_until('the commit to wait for a standby', sub {
		$cluster->query(q(SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND query LIKE '%Lost%' AND backend_type = 'client backend'), $leader) eq '1';
	});
	IPC::Run::finish($session);
	return $err;
}

my %refused = (read => 0, append => 0, fetch => 0, epoch => 0);
my @lost;
foreach my $round (1 .. $forks)
{
	# The first time replication is synchronous, and a client will not wait.
	my $cancel = $round == 1;
	$cluster->configure({ synchronous_mode => JSON::PP::false }) if $round == 2;
	my $leader = $cluster->wait_healthy(async => !$cancel);
	my $epoch = $cluster->query('SELECT epoch FROM es_store()');
	my $count = $cancel ? 1 : 1 + int rand 40;
	my $append = q(SELECT es_append('forked-' || n % 7, 'Written', to_jsonb(n)) FROM generate_series(1, %d) n);

	$cluster->query("SELECT es_create_subscription('round-$round', from_position => 0)");
	$cluster->query(sprintf $append, 25);
	$cluster->query('SELECT es_settle()') if rand() < 0.7;
	caught_up();
	my $common = $cluster->query('SELECT max(position) FROM es_event');
	my @frozen = $cluster->children($leader, 'walsender');
	kill 'STOP', @frozen;
	my $lost = q(SELECT es_append('lost-1', 'Lost', to_jsonb(n)) FROM generate_series(1, %d) n);
	if ($cancel)
	{
		my $warned = append_cancelled($leader, sprintf $lost, $count);
		like($warned, qr/WARNING:  canceling wait for synchronous replication/, 'a client that does not wait for the standby is warned');
	}
	else
	{
		$cluster->query(sprintf($lost, $count), $leader);
	}
	my $last = $cluster->query('SELECT max(position) FROM es_read_all(0, NULL)', $leader);
	my $boundary = '{"items": [{"types": ["Lost"]}]}';
	# An acknowledgement would wait for a standby, too.
	$cluster->query("SET synchronous_commit = local; SELECT count(*) FROM es_fetch('round-$round', 'one', 1000000, epoch => $epoch)", $leader);
	$cluster->crash($leader, whole => $round % 2, frozen => \@frozen);
	wait_until('a new leader', sub {
		my $new = $cluster->leader;

		return 1 if $new && $new->{name} ne $leader->{name};
		usleep(100_000);
		return 0;
	});
	$cluster->start_node($leader) if $round % 2;
	wait_until('it to accept appends', sub { ($cluster->try(sprintf $append, 60))[0] == 0 });
	push @lost, $count;
	is($cluster->query(q(SELECT count(*) FROM es_event WHERE event_type = 'Lost')), '0', "round $round: $count events are gone");

	my (undef, undef, $read) = $cluster->try("SELECT count(*) FROM es_read_all($last, 1, epoch => $epoch)");
	my (undef, undef, $append_if) = $cluster->try("SELECT es_append_if('[{\"type\": \"Written\", \"stream\": \"a-1\", \"data\": 1}]', '$boundary', $last, $epoch)");
	my (undef, undef, $fetch) = $cluster->try("SELECT * FROM es_fetch('round-$round', 'one', epoch => $epoch)");
	my ($fork) = $read =~ /55000: .*history that was left[\s\S]*Go on from position (\d+)/;
	$refused{read}++ if defined $fork && $fork <= $common && $fork < $last;
	$refused{append}++ if $append_if =~ /55000: .*history that was left/;
	$refused{fetch}++ if $fetch =~ /55000: epoch $epoch was left/;
	$refused{epoch}++ if $cluster->query('SELECT epoch FROM es_store()') > $epoch;
	is($cluster->query("SELECT count(*) > 0 FROM es_read_all($fork, NULL, epoch => $epoch)"), 't', "round $round: up to the fork, $fork, the epoch is good")
	  if defined $fork;
}
if ($forks > 0)
{
	is_deeply(\%refused, { map { $_ => $forks } keys %refused },
		sprintf '%d of %d times a new epoch, and what was told beyond the fork is refused by es_read_all, es_append_if and es_fetch (%d to %d events lost)',
		$refused{epoch}, $forks, (sort { $a <=> $b } @lost)[ 0, -1 ]);
	$cluster->wait_healthy(async => $forks > 1);
	is($cluster->query(q(SELECT count(*) FROM es_check() WHERE status <> 'ok')), '0', 'es_check() finds nothing');
}

done_testing();
