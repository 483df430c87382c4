# What read models cost: inline with an append, beside the same done by hand in one function; and rebuilt, beside the best SQL
# written by hand, or a client that reads a thousand events at a time and sends a statement for each.
package Bench::Work::projection;

use strict;
use warnings;
use Bench::Work;
use Time::HiRes qw(time);

my @million = ({ prefix => 'account-', streams => 10_000, events => 100 });

my $account = <<'SQL';
CREATE TABLE balances (id text PRIMARY KEY, balance numeric NOT NULL, moves bigint NOT NULL) WITH (fillfactor = 50);
INSERT INTO balances SELECT 'account-' || 1000000 + s, 0, 0 FROM generate_series(0, 999) s;
ANALYZE balances;
GRANT ALL ON balances TO bench_app;
SQL

my $by_function = $account . <<'SQL';
CREATE FUNCTION deposit(stream_id text, event_type text, data jsonb) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	version bigint := es_append(stream_id, event_type, data);
BEGIN
	UPDATE balances SET balance = balance + (data->>'amount')::numeric, moves = moves + 1 WHERE id = stream_id;
	RETURN version;
END
$$;
SQL

# Goes live at once when the log is caught up with.
my $inline = $account . <<'SQL';
BEGIN;
SELECT es_create_projection('account', 'inline', ARRAY['balances'::regclass]);
SELECT es_on('account', 'Deposited',
	'UPDATE balances SET balance = balance + (event.data->>''amount'')::numeric, moves = moves + 1 WHERE id = event.stream_id');
COMMIT;
SQL

my $fifty = <<'SQL';
DO $$
BEGIN
	FOR i IN 1 .. 50 LOOP
		PERFORM es_create_projection('p' || i, 'inline');
		PERFORM es_on('p' || i, 'Other' || i, 'SELECT 1');
	END LOOP;
END
$$;
SQL

# A slice of pgbench in a store that $setup was applied to first.
sub with_setup
{
	my ($setup) = @_;

	return sub {
		my ($bench, $contender, $setting) = @_;
		if ($bench->store_sql($contender, q(SELECT to_regclass('is_set_up') IS NULL)) =~ /t/)
		{
			$bench->store_sql($contender, $_)
			  foreach "CREATE TABLE is_set_up ()", "SET client_min_messages = warning; $setup", 'CALL es_run_projections()';
		}
		return $bench->measure_pgbench($contender, $setting);
	};
}

# The time that one statement takes for so many events, after some that are not counted.
sub timed
{
	my ($events, $statement, @before) = @_;

	return sub {
		my ($bench, $contender) = @_;
		my %store = (db => $contender->{db}, schema => $contender->{store});
		my $file = $bench->scratch_file($statement);
		$bench->store_sql($contender, "SET client_min_messages = warning; $_") foreach @before;
		my ($began, $cpu) = (time, $bench->{server}->cpu_seconds);
		$bench->{server}->sql(%store, file => $file);
		my $seconds = time - $began;
		return { rate => $events / $seconds, cpu => ($bench->{server}->cpu_seconds - $cpu) / $events, errors => 0 };
	};
}

my $summary = <<'SQL';
SELECT recorded_at::date, event_type, count(*), sum((data->>'amount')::numeric) FROM %s GROUP BY 1, 2
SQL
my $daily = <<'SQL' . sprintf("INSERT INTO daily %s;\n", sprintf $summary, 'es_event');
DROP TABLE IF EXISTS daily CASCADE;
CREATE TABLE daily (day date, kind text, moves bigint, amount numeric, PRIMARY KEY (day, kind));
SQL
my $define_daily = sprintf <<'SQL', sprintf $summary, 'new_events';
SELECT es_drop_projection(name) FROM es_projection;
BEGIN;
SELECT es_create_projection('daily', tables => ARRAY['daily'::regclass]);
SELECT es_on_batch('daily', $$INSERT INTO daily AS d %s
	ON CONFLICT (day, kind) DO UPDATE SET moves = d.moves + excluded.moves, amount = d.amount + excluded.amount$$);
SELECT es_pause_projection('daily');
COMMIT;
SQL

my $total = <<'SQL';
DROP TABLE IF EXISTS total CASCADE;
CREATE TABLE total (id text PRIMARY KEY, amount numeric NOT NULL, moves bigint NOT NULL);
SQL
my $add = <<'SQL';
INSERT INTO total AS t VALUES (%s, (%s->>'amount')::numeric, 1)
	ON CONFLICT (id) DO UPDATE SET amount = t.amount + excluded.amount, moves = t.moves + 1
SQL
my $handler = sprintf $add, 'event.stream_id', 'event.data';
my $define_total = <<SQL;
SELECT es_drop_projection(name) FROM es_projection;
BEGIN;
SELECT es_create_projection('total', tables => ARRAY['total'::regclass]);
SELECT es_on('total', 'Deposited', \$\$$handler\$\$);
SELECT es_on('total', 'Withdrawn', \$\$$handler\$\$);
SELECT es_on('total', 'Closed', 'DELETE FROM total WHERE id = event.stream_id');
SELECT es_pause_projection('total');
COMMIT;
SQL
my $one_by_one = join '', map { sprintf "SELECT format(%s, stream_id, data) FROM es_read_all(%d, 1000) \\gexec\n",
	q($$) . sprintf($add, '%1$L', '%2$L::jsonb') . q($$), 1000 * $_ } 0 .. 9;

sub append_to
{
	my ($db, $label, $setup, $sql) = @_;

	return {
		store => 'eventstore', db => $db, key => $db, label => $label, measure => with_setup($setup),
		sql => $sql // q(SELECT es_append('account-' || :s, :type, :data);),
	};
}

my %append = (group => 'projection', clients => [1], client => existing_stream(1));
my %rebuild = (group => 'projection', clients => [1], sync => ['on'], seed => \@million, reads => 1, rounds => 3);

return (
	{
		%append,
		title => 'append, 50 projections that do not care',
		contenders => [ append_to('bench_none', 'no projection', ''), append_to('bench_fifty', '50 projections', $fifty) ],
		wants => [ { is => 'rate', of => 'bench_fifty', than => 'bench_none', least => 0.97 } ],
	},
	{
		%append,
		title => 'append and update a row',
		contenders => [
			append_to('bench_function', 'both in one function', $by_function, q(SELECT deposit('account-' || :s, :type, :data);)),
			append_to('bench_inline', 'inline projection', $inline),
		],
		wants => [ { is => 'rate', of => 'bench_inline', than => 'bench_function', least => 0.75 } ],
	},
	{
		%rebuild,
		title => 'a summary of a million events',
		contenders => [
			{ store => 'eventstore', key => 'by hand', label => 'one statement by hand', measure => timed(1_000_000, $daily) },
			{ store => 'eventstore', key => 'rebuild', label => 'rebuild, once a batch',
				measure => timed(1_000_000, "CALL es_rebuild_projection('daily')", $daily, $define_daily) },
		],
		wants => [ { is => 'rate', of => 'rebuild', than => 'by hand', least => 0.7 } ],
	},
	{
		%rebuild,
		title => 'a million events one by one',
		contenders => [
			{ store => 'eventstore', key => 'client', label => 'client, 1,000 at a time', measure => timed(10_000, $one_by_one, $total) },
			{ store => 'eventstore', key => 'rebuild', label => 'rebuild, 3 handlers',
				measure => timed(1_000_000, "CALL es_rebuild_projection('total')", $total, $define_total) },
		],
		wants => [ { is => 'rate', of => 'rebuild', than => 'client', least => 10 } ],
	});
