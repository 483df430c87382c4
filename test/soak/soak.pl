# Soak: faults at random for a given time, and all invariants looked at all
# along.  Run by `make soak`.
#
# Writers append in every way there is, one of them with asynchronous commit,
# and say what was acknowledged.  One reader goes on from the last position it
# saw, over every crash, and notes all it meets.  Two consumers share a
# subscription and acknowledge in the transaction of their effect.  A worker
# keeps an asynchronous projection, the appends keep an inline one.  A lot
# decides what happens next: %faults below.
#
# Invariants, at every look:
#  - what was acknowledged the reader has met, as soon as it is further on;
#  - a transaction's events are met all or not at all;
#  - positions grow, and inside each stream versions are 1, 2, 3 ...;
#  - what the reader met is what the store has, to the event;
#  - read models are those of the events, with nothing parked;
#  - a subscription's effects came once, each stream in order;
#  - the reader is not held back once nobody is under way;
#  - es_check() finds nothing.
#
# ES_SOAK_MINUTES says for how long (30), ES_SEED repeats the lot's decisions.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../t";

use EsDisks;
BEGIN { EsDisks::mount_disks(data => '1g', wal => '300m') }
use Digest::MD5 qw(md5_hex);
use EsTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

my $minutes = $ENV{ES_SOAK_MINUTES} || 30;
my $seed = $ENV{ES_SEED} || time;
srand($seed);
note("ES_SEED=$seed");

my $has_disks = defined small_disk('data');
my $node = new_store('main', <<'CONF', $has_disks ? (extra => [ '--wal-segsize=1', '--waldir=' . small_disk('wal') . '/pg_wal' ]) : ());
restart_after_crash = on
shared_preload_libraries = 'eventstore'
max_prepared_transactions = 10
max_worker_processes = 8
max_wal_size = 64MB
checkpoint_timeout = 1min
wal_recycle = off
log_statement = none
log_min_error_statement = panic
CONF
my $began = time;
my $end = $began + 60 * $minutes;

my %actor;               # name => [psql, script]
my $session = 0;         # of an actor, ever
my %acknowledged;        # unit => position, not yet compared
my $acks = 0;
my (%met, %of);          # unit => events met, and how many it has
my %was_half;            # units that were met by half at the last thorough look
my @window;              # "position id" since the last comparison
my ($last, $base, $events) = (0, 0, 0);
my %version;             # stream => last version met
my %prepared;            # transaction => [unit, position, time]
my %open;                # psql of transactions that stay open for a while => until
my %happened;
my %found = (lost => 0, doubled => 0, reordered => 0, unsound => 0, stuck => 0, torn => 0);
my $looks = 0;

sub sql
{
	return ask_server($node, $_[0], $_[1] // 'store');
}

# May fail: whoever runs it may be hit by the next fault.
sub try_sql
{
	my ($query, %params) = @_;
	my ($ret, $out) = eval { $node->psql('store', $query, on_error_stop => 1, %params) };

	return defined $ret && $ret == 0 ? $out : undef;
}

sub violated
{
	my ($kind, $n, $what) = @_;

	return unless $n;
	$found{$kind} += $n;
	diag(sprintf 'after %.0f s, %s: %s', time - $began, $kind, $what);
}

# ----- the actors -----

sub make_store
{
	my $where = '';

	if ($has_disks)
	{
		mkdir small_disk('data') . '/tablespace';
		$node->safe_psql('postgres', "CREATE TABLESPACE small LOCATION '" . small_disk('data') . "/tablespace'");
		$where = 'TABLESPACE small';
	}
	$node->safe_psql('postgres', "CREATE DATABASE store $where");
	$node->safe_psql('store', <<'SQL');
CREATE EXTENSION eventstore;
CREATE TABLE total (stream_id text PRIMARY KEY, events bigint);
CREATE TABLE summed (stream_id text PRIMARY KEY, events bigint);
CREATE TABLE done (n bigint GENERATED ALWAYS AS IDENTITY, position bigint PRIMARY KEY);
BEGIN;
SELECT es_create_projection('total', 'inline', '{total}');
SELECT es_on_batch('total', 'INSERT INTO total AS t SELECT stream_id, count(*) FROM new_events GROUP BY 1 ORDER BY 1
	ON CONFLICT (stream_id) DO UPDATE SET events = t.events + excluded.events');
COMMIT;
BEGIN;
SELECT es_create_projection('summed', tables => '{summed}', on_error => 'skip');
SELECT es_on_batch('summed', 'INSERT INTO summed AS t SELECT stream_id, count(*) FROM new_events GROUP BY 1
	ON CONFLICT (stream_id) DO UPDATE SET events = t.events + excluded.events');
COMMIT;
SELECT es_create_subscription('all', partitions => 4);

-- One transaction's events, so many, in one of several ways.
CREATE PROCEDURE unit(u text, of int, how int) LANGUAGE plpgsql AS $$
DECLARE
	data jsonb := jsonb_build_object('u', u, 'of', of);
	stream text := 's-' || lpad((random() * 30)::int::text, 2, '0');
BEGIN
	IF how = 0 THEN
		PERFORM es_append_batch(stream, array_fill('A'::text, ARRAY[of]), array_fill(data, ARRAY[of]));
	ELSIF how = 1 THEN
		INSERT INTO es_event (stream_id, event_type, data) SELECT stream, 'A', data FROM generate_series(1, of);
	ELSIF how = 2 THEN
		FOR i IN 1 .. of LOOP
			BEGIN
				PERFORM es_append(stream, 'A', data);
				RAISE 'undone';
			EXCEPTION WHEN raise_exception THEN
				PERFORM es_append(stream, 'A', data);
			END;
		END LOOP;
	ELSE
		FOR i IN 1 .. of LOOP
			PERFORM es_append(stream, 'A', data);
			PERFORM pg_sleep(random() * 0.003);
		END LOOP;
	END IF;
END $$;

CREATE PROCEDURE write(me text) LANGUAGE plpgsql AS $$
DECLARE
	u text;
	n int := 0;
	"position" bigint;
BEGIN
	LOOP
		n := n + 1;
		u := me || '.' || n;
		CALL unit(u, CASE WHEN random() < 0.02 THEN 80 ELSE 1 + (random() * 4)::int END, (random() * 3.9)::int % 4);
		"position" := es_last_position();
		IF random() < 0.1 THEN
			ROLLBACK;
		ELSE
			COMMIT;
			RAISE NOTICE 'acknowledged % %', u, "position";
		END IF;
		PERFORM pg_sleep(random() * 0.1);
	END LOOP;
END $$;

CREATE PROCEDURE consume(me text) LANGUAGE plpgsql AS $$
DECLARE
	delivery record;
BEGIN
	LOOP
		SELECT min(token) AS token, array_agg(position) AS positions INTO delivery FROM es_fetch('all', me, 100, '5 s');
		COMMIT;
		IF delivery.token IS NULL THEN
			PERFORM es_wait_for_events('all', '200 ms', me);
			COMMIT;
			CONTINUE;
		END IF;
		INSERT INTO done (position) SELECT unnest(delivery.positions);
		PERFORM es_ack('all', delivery.token);
		COMMIT;
	END LOOP;
END $$;
SQL
}

sub script_of
{
	my ($name) = @_;

	return "SET application_name = 'actor'; CALL consume('$name');" if $name =~ /^consumer/;
	return "SET application_name = 'actor';\nSET synchronous_commit = " . ($name eq 'writer 0' ? 'off' : 'on')
	  . ";\nCALL write('" . ($name eq 'writer 0' ? 'x' : 'w') . ++$session . "');";
}

# What an actor has said since it was last asked.
sub listen_to
{
	my ($name) = @_;
	my $actor = $actor{$name} or return;
	my $file = "$actor->{file}.err";

	return unless -e $file;
	open my $in, '<', $file or die "could not open $file: $!";
	seek $in, $actor->{heard} // 0, 0;
	while (defined(my $line = <$in>))
	{
		last if $line !~ /\n\z/;
		$actor->{heard} = tell $in;
		next unless $line =~ /acknowledged (\S+) (\d+)/;
		next if $name eq 'writer 0';
		$acknowledged{$1} = $2;
		$acks++;
	}
	close $in;
}

sub keep_actors
{
	foreach my $name (map({ "writer $_" } 0 .. 5), 'consumer 1', 'consumer 2')
	{
		my $actor = $actor{$name};

		if ($actor)
		{
			listen_to($name);
			next if eval { $actor->{run}->pump_nb; 1 } && $actor->{run}->pumpable;
			eval { psql_finish($actor) };
			listen_to($name);
			unlink glob "$actor->{file}.*";
		}
		$actor{$name} = psql_start($node, script_of($name), dbname => 'store');
	}
}

# ----- the reader -----

sub read_on
{
	my $rows = try_sql("SELECT position, event_id, stream_id, version, data->>'u', data->>'of' FROM es_read_all($last, 5000)") // return 0;
	my @rows = split /\n/, $rows;

	foreach (@rows)
	{
		my ($position, $id, $stream, $version, $unit, $of) = split /\|/;

		violated('reordered', 1, "position $position behind $last") if $position <= $last;
		my $expected = ($version{$stream} // 0) + 1;
		violated($version < $expected ? 'doubled' : 'lost', 1, "version $version of $stream, not $expected, at $position")
		  if $version != $expected;
		$version{$stream} = $version;
		$last = $position;
		$met{$unit}++;
		$of{$unit} = $of;
		push @window, "$position $id";
		$events++;
	}
	return scalar @rows;
}

# ----- faults -----

sub some_backend
{
	return try_sql(q(SELECT pid FROM pg_stat_activity WHERE application_name = 'actor' OR backend_type LIKE 'eventstore%' ORDER BY random() LIMIT 1));
}

sub start_again
{
	my $until = time + 8;

	while (time < $until)
	{
		return if (eval { ($node->psql('postgres', 'SELECT 1'))[0] } // 2) == 0;
		last if !-e $node->data_dir . '/postmaster.pid';
		usleep(50_000);
	}
	$node->stop('immediate', fail_ok => 1);
	$node->start;
}

sub decide_prepared
{
	my ($all) = @_;

	foreach my $name (keys %prepared)
	{
		my ($unit, $position, $until) = @{ $prepared{$name} };

		next unless $all || time > $until;
		if (rand() < 0.6)
		{
			next unless defined try_sql("COMMIT PREPARED '$name'");
			$acknowledged{$unit} = $position;
			$acks++;
		}
		else
		{
			next unless defined try_sql("ROLLBACK PREPARED '$name'");
		}
		delete $prepared{$name};
	}
}

sub end_open
{
	my ($all) = @_;

	foreach my $file (keys %open)
	{
		my ($psql, $until) = @{ $open{$file} };

		next unless $all || time > $until;
		eval { psql_finish($psql) };
		unlink glob "$file.*";
		delete $open{$file};
	}
}

my %faults = (
	'cancelled' => sub { my $pid = some_backend() or return; try_sql("SELECT pg_cancel_backend($pid)") },
	'terminated' => sub { my $pid = some_backend() or return; try_sql("SELECT pg_terminate_backend($pid)") },
	'killed by signal 9' => sub { my $pid = some_backend() or return; kill 'KILL', $pid; usleep(100_000) },
	'server killed' => sub { crash($node); $node->start },
	'server stopped immediately' => sub { $node->stop('immediate'); $node->start },
	'server restarted' => sub { $node->restart },
	'transaction left open' => sub {
		my $unit = 'o' . ++$session;
		my $seconds = 0.5 + rand 3;
		my $psql = psql_start($node, "BEGIN; CALL unit('$unit.1', 3, 0); SELECT pg_sleep($seconds); " . (rand() < 0.5 ? 'COMMIT' : 'ROLLBACK') . ';', dbname => 'store');
		$open{ $psql->{file} } = [ $psql, time + $seconds + 1 ];
	},
	'transaction prepared' => sub {
		my $unit = 'p' . ++$session;
		my $position = try_sql("BEGIN; CALL unit('$unit.1', 2, 2); SELECT es_last_position(); PREPARE TRANSACTION '$unit';") // return;
		$prepared{$unit} = [ "$unit.1", $position, time + rand 3 ];
	},
	'archived' => sub { try_sql('CALL es_archive(before_position => greatest(1, (es_settled_position() * ' . rand() . ')::bigint), segment_events => 500, max_segments => 8)') },
	'archiver timed out' => sub { try_sql('SET statement_timeout = ' . (1 + int rand 150) . '; CALL es_archive(before_position => es_settled_position(), segment_events => 200)') },
	'batch timed out' => sub { my $n = ++$session; try_sql("SET statement_timeout = " . (1 + int rand 200) . "; CALL unit('b$n.1', 5000, 0)") },
	'rebuilt' => sub { try_sql(q(CALL es_rebuild_projection(') . (rand() < 0.5 ? 'total' : 'summed') . q('))) },
	'paused and resumed' => sub {
		my $name = rand() < 0.5 ? 'total' : 'summed';
		try_sql("SELECT es_pause_projection('$name')");
		usleep(rand 300_000);
		sql("SELECT es_resume_projection('$name')");
	},
	'database came and went' => sub {
		eval { $node->psql('postgres', $_) } foreach 'DROP DATABASE IF EXISTS other', 'CREATE DATABASE other';
		eval { $node->psql('other', q(CREATE EXTENSION eventstore; SELECT es_start_worker(); SELECT es_append('a-1', 'A', '{}'))) };
		eval { $node->psql('postgres', $_) } foreach 'CREATE DATABASE another TEMPLATE other', 'DROP DATABASE IF EXISTS another', 'DROP DATABASE IF EXISTS other';
	},
	'vacuumed' => sub { try_sql('VACUUM es_event'); try_sql('VACUUM total; VACUUM summed') });
if ($has_disks)
{
	$faults{'disk full for data'} = sub {
		my $ballast = fill_disk('data', 200);
		try_sql("CALL unit('d" . ++$session . ".1', 5000, 0)");
		usleep(500_000);
		unlink $ballast;
	};
	$faults{'disk full for WAL'} = sub {
		my $ballast = fill_disk('wal', 300);
		try_sql("CALL unit('d" . ++$session . ".1', 5000, 0)");
		usleep(500_000);
		unlink $ballast;
		start_again();
	};
}
my %weight = ('cancelled' => 4, 'terminated' => 4, 'killed by signal 9' => 3, 'transaction left open' => 4,
	'transaction prepared' => 4, 'archived' => 3, 'rebuilt' => 2, 'server restarted' => 0.5, 'database came and went' => 0.5);
my @lot = map { ($_) x (2 * ($weight{$_} // 1)) } sort keys %faults;

sub fault
{
	my $name = $lot[ rand @lot ];

	$happened{$name}++;
	$faults{$name}->();
	start_again();
}

# ----- looking -----

# Wait until nobody is under way and the reader has met everything.
sub come_to_rest
{
	my $until = time + 60;
	my $settled;

	decide_prepared(1) while %prepared && time < $until;
	end_open(1);
	$settled = sql('SELECT last_value FROM es_event_position_seq');
	while (time < $until)
	{
		1 while read_on();
		return if sql('SELECT es_settled_position()') >= $settled && !read_on();
		usleep(50_000);
	}
	violated('stuck', 1, "the settled position does not reach $settled: "
		  . sql(q(SELECT string_agg(concat_ws(' ', pid, objsubid, classid, objid, granted), ', ') FROM pg_locks WHERE locktype = 'advisory')));
}

sub look
{
	my ($thorough) = @_;
	my @wrong;
	my $digest = md5_hex(join ',', @window);
	my $stored;

	$looks++;
	foreach my $unit (keys %acknowledged)
	{
		next if $acknowledged{$unit} > $last;
		push @wrong, $unit if ($met{$unit} // 0) == 0;
		delete $acknowledged{$unit};
	}
	violated('lost', scalar @wrong, "acknowledged, not there: @wrong");
	$stored = sql("SELECT coalesce(md5(string_agg(position || ' ' || event_id, ',' ORDER BY position)), md5(''))
		FROM es_read_all($base, NULL) WHERE position <= $last");
	violated('lost', 1, "between $base and $last the store has not what the reader met") if $stored ne $digest;
	return unless $thorough;

	# The rest of a unit may lie behind somebody's hole, but not for ever.
	my %half = map { $_ => 1 } grep { $met{$_} != $of{$_} } keys %met;
	@wrong = grep { $half{$_} } keys %was_half;
	violated('torn', scalar @wrong, "met by half: @wrong");
	%was_half = %half;
	@window = ();
	$base = $last;
	sql('CALL es_run_projections()');
	my $models = sql(q(BEGIN ISOLATION LEVEL REPEATABLE READ;
		CREATE TEMP TABLE actual ON COMMIT DROP AS SELECT stream_id, count(*) AS events,
			count(*) FILTER (WHERE position <= (SELECT position FROM es_projection WHERE name = 'summed')) AS summed FROM es_event_all GROUP BY 1;
		SELECT (SELECT count(*) FROM (SELECT stream_id, events FROM actual WHERE (SELECT status FROM es_projection WHERE name = 'total') = 'live'
					EXCEPT SELECT * FROM total) x) || ' ' ||
			(SELECT count(*) FROM (SELECT stream_id, summed FROM actual WHERE summed > 0 EXCEPT SELECT * FROM summed) x) || ' ' ||
			(SELECT count(*) FROM es_parked) || ' ' || (SELECT count(*) FROM es_projection WHERE status IN ('stopped', 'paused'));
		COMMIT));
	violated('unsound', 1, "read models (inline, asynchronous), parked, stopped: $models") if $models ne '0 0 0 0';
	my $consumed = sql(q(SELECT count(*) FROM (SELECT e.version <= lag(e.version) OVER (PARTITION BY e.stream_id ORDER BY d.n) AS wrong
		FROM done d JOIN es_event_all e USING (position)) AS x WHERE wrong));
	violated('reordered', $consumed, 'effects of the subscription');
	my $checked = sql(q(SELECT string_agg(check_name || ': ' || status, ', ') FROM es_check()
		WHERE status <> 'ok' AND check_name <> 'projections'));
	violated('unsound', 1, "es_check(): $checked") if $checked ne '';
}

# ----- the run -----

make_store();
my ($next_fault, $next_look) = (time + 2, time + 20);
while (time < $end)
{
	keep_actors();
	read_on();
	decide_prepared(0);
	end_open(0);
	if (time > $next_fault)
	{
		fault();
		$next_fault = time + rand 2;
	}
	if (time > $next_look)
	{
		my $thorough = $looks % 5 == 4;

		if ($thorough)
		{
			come_to_rest();
		}
		look($thorough);
		note sprintf '%.0f s: %d events, %d acknowledged transactions, %d faults', time - $began, $events, $acks, eval { my $n = 0; $n += $_ foreach values %happened; $n };
		$next_look = time + 20;
	}
	usleep(100_000);
}

# In the end everybody stops, and everything is compared once more.
keep_actors();
try_sql(q(SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'actor' AND query LIKE '%write%'));
usleep(300_000);
foreach my $name (keys %actor)
{
	listen_to($name);
}
come_to_rest();
wait_until('the consumers to come to the end', sub {
	foreach my $name ('consumer 1', 'consumer 2')
	{
		my $actor = $actor{$name};
		next if $actor && eval { $actor->{run}->pump_nb; 1 } && $actor->{run}->pumpable;
		eval { psql_finish($actor) } if $actor;
		$actor{$name} = psql_start($node, script_of($name), dbname => 'store');
	}
	return sql(q(SELECT count(*) FROM es_stat_subscription WHERE lag_events > 0 OR in_flight > 0)) eq '0';
});
wait_until('the inline projection to be live', sub {
	sql('CALL es_run_projections()');
	return sql(q(SELECT status FROM es_projection WHERE name = 'total')) eq 'live';
});
look(1) for 1 .. 2;
my ($consumed, $all) = split /\|/, sql('SELECT (SELECT count(*) FROM done), (SELECT count(*) FROM es_event_all)');
violated('lost', abs($all - $consumed), "the subscription delivered $consumed of $all");
violated('lost', abs($all - $events), "the reader met $events of $all");
violated('lost', scalar keys %acknowledged, 'acknowledged and never met: ' . join ' ', keys %acknowledged);

my $faults = 0;
foreach my $name (sort keys %happened)
{
	note sprintf '%-28s %d', $name, $happened{$name};
	$faults += $happened{$name};
}
note sprintf '%.0f minutes, seed %s: %d faults, %d events, %d acknowledged transactions, looked %d times',
  (time - $began) / 60, $seed, $faults, $events, $acks, $looks;
cmp_ok($faults, '>', 0, "$faults faults in $minutes minutes");
cmp_ok($events, '>', 0, "$events events");
is($found{$_}, 0, "nothing $_") foreach sort keys %found;
report_figures(faults => $faults, lost => $found{lost} + $found{torn} + $found{stuck} + $found{unsound}, doubled => $found{doubled}, reordered => $found{reordered});

try_sql(q(SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'actor'));
eval { psql_finish($_) } foreach values %actor;
$node->stop;
done_testing();
