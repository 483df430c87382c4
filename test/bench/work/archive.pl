# What archived events cost: their bytes, and reading and appending beside a store of the same events of which none is archived.
#
# A thousand streams of a thousand events, written in turns, so that each stream is scattered over all of the log.  Amounts and references
# differ from event to event as they would in life: what compression can do is not what a payload that is always the same would let it.
package Bench::Work::archive;

use strict;
use warnings;
use Bench::Work;

my %common = (group => 'archive', clients => [1], sync => ['off'], seed => [ { prefix => 'none-', streams => 1, events => 1 } ]);

my $fill = <<'SQL';
CREATE TABLE is_set_up ();
INSERT INTO es_event (stream_id, event_type, data)
SELECT 'account-' || 1000000 + s, (ARRAY['Deposited', 'Withdrawn', 'Transferred'])[1 + (v + s) % 3], jsonb_build_object(
	'account', 'ACC-' || s, 'amount', round((random() * 1000)::numeric, 2), 'currency', 'EUR', 'reference', md5(random()::text),
	'channel', (ARRAY['mobile', 'web', 'branch'])[1 + (v * s) % 3],
	'by', jsonb_build_object('user', 'u-' || (random() * 100000)::int, 'name', 'Ada Lovelace'),
	'balance_after', round((random() * 10000)::numeric, 2), 'ok', true)
FROM generate_series(1, 1000) v, generate_series(0, 999) s;
VACUUM ANALYZE es_event;
SQL

# What is measured, in a store that was filled, and archived where that is its contender's part.
sub ready
{
	my ($measure) = @_;

	return sub {
		my ($bench, $contender, $setting) = @_;
		if ($bench->store_sql($contender, q(SELECT to_regclass('is_set_up') IS NULL)) =~ /t/)
		{
			$bench->store_sql($contender, $_) foreach split /;\n/, $fill;
			$bench->store_sql($contender, $_)
			  foreach $contender->{key} eq 'archived' ? ('CALL es_archive(before_position => 1000001)', 'VACUUM ANALYZE') : ();
		}
		return $measure->($bench, $contender, $setting);
	};
}

# What a million events weigh, by an SQL expression.
sub size_of
{
	my ($bytes) = @_;

	return ready(sub {
		my ($bench, $contender) = @_;
		return { bytes => $bench->store_sql($contender, "SELECT round(($bytes) / 1000000.0, 1)"), errors => 0 };
	});
}

sub pair
{
	my (%what) = @_;

	return [ map { { store => 'eventstore', db => "bench_$_", key => $_, label => $_, measure => ready(\&Bench::Run::measure_pgbench), %what } }
		  qw(hot archived) ];
}

my $archive = join ' + ', map { "pg_total_relation_size('$_')" } qw(es_archive_segment es_archive_run es_archive_key);

return (
	{
		%common,
		title => 'read a stream of 1,000, archived',
		unit => 1000,
		reads => 1,
		client => "\\set s random(1000000, 1000999)\n",
		contenders => pair(sql => q(SELECT * FROM es_read_stream('account-' || :s);)),
		wants => [ { is => 'rate', of => 'archived', than => 'hot', least => 0.33 } ],
	},
	{
		%common,
		title => 'read all, 1,000 at a time, archived',
		unit => 1000,
		reads => 1,
		client => "\\set n (:n + 1000) % 1000000\n",
		contenders => pair(sql => 'SELECT * FROM es_read_all(:n);'),
		wants => [ { is => 'rate', of => 'archived', than => 'hot', least => 0.5 } ],
	},
	{
		%common,
		title => 'append to a new stream, beside an archive',
		contenders => pair(sql => q(SELECT es_append('new-' || gen_random_uuid(), 'Deposited', '{}');)),
		reads => 1,
		wants => [ { is => 'rate', of => 'archived', than => 'hot', least => 0.5 } ],
	},
	{
		%common,
		title => 'append with an id, beside an archive',
		contenders => pair(sql => q(SELECT es_append('account-' || random(), 'Deposited', '{}', event_id => gen_random_uuid());)),
		reads => 1,
		wants => [ { is => 'rate', of => 'archived', than => 'hot', least => 0.5 } ],
	},
	{
		%common,
		title => 'bytes per event, archived',
		rounds => 1,
		shows => 'bytes',
		reads => 1,
		contenders => [
			{ store => 'eventstore', db => 'bench_hot', key => 'hot', label => 'table', measure => size_of("pg_table_size('es_event')") },
			{ store => 'eventstore', db => 'bench_hot', key => 'indexed', label => 'table and indexes',
				measure => size_of("pg_total_relation_size('es_event')") },
			{ store => 'eventstore', db => 'bench_archived', key => 'archived', label => 'archived', measure => size_of($archive) },
		],
		wants => [ { is => 'bytes', of => 'archived', than => 'hot', most => 0.35 } ],
	},
);
