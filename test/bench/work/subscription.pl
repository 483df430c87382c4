# What consumers outside the database cost: es_fetch and es_ack, a hundred events at a time, beside reading the log without
# remembering where one is; eight consumers that share a subscription, beside eight that have one each; and how long an append
# takes to reach a consumer that waits.
#
# A slice counts the events that were acknowledged, however many calls that took.
package Bench::Work::subscription;

use strict;
use warnings;
use Bench::Work;

my @million = ({ prefix => 'account-', streams => 1000, events => 1000 });
my %common = (group => 'subscription', seed => \@million, reads => 1);

my $again = <<'SQL';
SET client_min_messages = warning;
SELECT es_drop_subscription(name) FROM es_subscription;
SQL
my $both = q(SELECT * FROM es_fetch('%s', 'c' || :client_id, 100, ack => nullif(:token, 'none')) \aset) . "\n";
my $each = q(SELECT * FROM es_fetch('%s', 'c' || :client_id, 100) \aset) . "\n" . q(SELECT es_ack('%1$s', :token);) . "\n";
my $acknowledged = <<'SQL';
SELECT sum(CASE WHEN s.partitions = 1 THEN p.position ELSE
	(SELECT count(*) FROM es_event e WHERE e.position <= p.position AND es_stream_partition(e.stream_id, s.partitions) = p.partition) END)
	FROM es_subscription_partition p JOIN es_subscription s ON s.name = p.subscription
SQL

# A slice of pgbench from the beginning of the log.
sub consume
{
	my (@create) = @_;

	return sub {
		my ($bench, $contender, $setting) = @_;
		$bench->store_sql($contender, join ';', $again, 'SET ROLE bench_app', @create);
		my $figure = $bench->measure_pgbench($contender, { %$setting, piece => { %{ $setting->{piece} }, unit => 1 } });
		my $calls = $figure->{rate} * $bench->{seconds};
		my $events = $bench->store_sql($contender, $acknowledged);
		return { rate => $events / $bench->{seconds}, cpu => $figure->{cpu} * $calls / $events, errors => $figure->{errors} };
	};
}

sub create
{
	my ($name, $partitions) = @_;

	return "SELECT es_create_subscription('$name', partitions => $partitions)";
}

# Appends to a consumer that waits, one after the other: the median of the times between, as a rate.
sub latency
{
	my ($worker) = @_;

	return sub {
		my ($bench, $contender, $setting) = @_;
		my $count = 200;
		$bench->store_sql($contender, <<"SQL");
$again
CREATE TABLE IF NOT EXISTS arrival (taken interval);
TRUNCATE arrival;
SELECT es_create_subscription('arrival', from_position => es_settled_position());
CREATE OR REPLACE PROCEDURE arrive() LANGUAGE plpgsql AS \$\$
DECLARE
	delivery record;
	n int := 0;
BEGIN
	WHILE n < $count LOOP
		PERFORM es_wait_for_events('arrival', '10 s', 'c');
		COMMIT;
		SELECT min(token) AS token, min(recorded_at) AS recorded_at, count(*) AS count INTO delivery FROM es_fetch('arrival', 'c');
		IF delivery.count > 0 THEN
			INSERT INTO arrival VALUES (clock_timestamp() - delivery.recorded_at);
			PERFORM es_ack('arrival', delivery.token);
			n := n + delivery.count;
		END IF;
		COMMIT;
	END LOOP;
END
\$\$;
CREATE OR REPLACE PROCEDURE send() LANGUAGE plpgsql AS \$\$
BEGIN
	FOR i IN 1 .. $count LOOP
		PERFORM es_append('arrival-1', 'Sent', '{}');
		COMMIT;
		PERFORM pg_sleep(0.01);
	END LOOP;
END
\$\$;
SQL
		$bench->store_sql($contender, 'SELECT es_start_worker()') if $worker;
		my $sender = $bench->scratch_file("SET synchronous_commit = off;\nCALL send();\n");
		my $cpu = $bench->{server}->cpu_seconds;
		my $child = fork() // die "fork: $!\n";
		if ($child == 0)
		{
			eval { $bench->{server}->sql(db => $contender->{db}, schema => $contender->{store}, file => $sender) };
			require POSIX;
			POSIX::_exit($@ ? 1 : 0);
		}
		$bench->store_sql($contender, 'CALL arrive()');
		waitpid $child, 0;
		my $median = $bench->store_sql($contender,
			'SELECT extract(epoch FROM percentile_cont(0.5) WITHIN GROUP (ORDER BY taken)) FROM arrival');
		return { rate => 1 / $median, cpu => ($bench->{server}->cpu_seconds - $cpu) / $count, errors => $? ? 1 : 0 };
	};
}

sub scripts
{
	my ($script, $name) = @_;

	return sprintf $script, $name;
}

my $shared = scripts($both, 'shared');
my $apart = join '', map { sprintf "\\if :client_id = %d\n%s\\endif\n", $_, scripts($both, "apart$_") } 0 .. 7;

# Somebody else has the other partitions of each, and does nothing.
my $hold = <<'SQL';
INSERT INTO es_subscription_consumer SELECT name, 'other', 0, 'infinity', now(), 0 FROM es_subscription;
UPDATE es_subscription_partition SET consumer = 'other' WHERE subscription <> 'apart' || partition
SQL
my $single = join '', map { sprintf "\\if :client_id = %d\n%s\\endif\n", $_, scripts($both, "single$_") } 0 .. 7;

return (
	{
		%common,
		title => 'fetch and acknowledge, 100 at a time',
		unit => 100,
		clients => [1],
		vars => { token => 'none' },
		contenders => [
			{ store => 'eventstore', key => 'read', label => 'es_read_all (remembers nothing)', client => '',
				sql => "\\set n (:n + 100) % 1000000\nSELECT * FROM es_read_all(:n, 100);" },
			{ store => 'eventstore', key => 'both', label => 'es_fetch(ack => …)', sql => scripts($both, 'one'),
				measure => consume(create('one', 1)) },
			{ store => 'eventstore', key => 'each', label => 'es_fetch, es_ack', sql => scripts($each, 'one'),
				measure => consume(create('one', 1)) },
			{ store => 'eventstore', key => 'parts', label => 'es_fetch(ack => …), 8 partitions', sql => scripts($both, 'one'),
				measure => consume(create('one', 8)) },
		],
		wants => [
			{ is => 'rate', of => 'both', than => 'read', least => 0.5 },
			{ is => 'rate', of => 'each', than => 'read', least => 0.3 },
			{ is => 'rate', of => 'parts', than => 'read', least => 0.4 } ],
	},
	{
		%common,
		title => 'eight consumers',
		unit => 100,
		clients => [8],
		vars => { token => 'none' },
		contenders => [
			{ store => 'eventstore', key => 'single', label => 'a subscription each', sql => $single,
				measure => consume(map { create("single$_", 1) } 0 .. 7) },
			{ store => 'eventstore', key => 'apart', label => 'a partition of 8 of a subscription each', sql => $apart,
				measure => consume((map { create("apart$_", 8) } 0 .. 7), 'RESET ROLE', $hold) },
			{ store => 'eventstore', key => 'shared', label => 'one subscription, 8 partitions', sql => $shared,
				measure => consume(create('shared', 8)) },
		],
		wants => [
			{ is => 'rate', of => 'shared', than => 'apart', least => 0.8 },
			{ is => 'rate', of => 'shared', than => 'single', least => 0.8 } ],
	},
	{
		group => 'subscription',
		title => 'append to a waiting consumer, per second one after the other (1 / median)',
		clients => [1],
		sync => ['off'],
		contenders => [
			{ store => 'eventstore', key => 'polling', label => 'without a worker', measure => latency(0), db => 'bench_polling' },
			{ store => 'eventstore', key => 'woken', label => 'with a worker', measure => latency(1), db => 'bench_woken' },
		],
		wants => [ { is => 'rate', of => 'woken', than => 'polling', least => 1 } ],
	});
