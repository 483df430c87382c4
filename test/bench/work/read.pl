# Reading a stream of 10,000 events and the whole log of a million, and what a million events weigh on disk.
#
# Emmett's release has no index for reading all events in order (measured elsewhere: a page a second), so that it is left
# out there.  The client takes every row; the CPU column is the server's alone.
package Bench::Work::read;

use strict;
use warnings;
use Bench::Work;

my @million = ({ prefix => 'account-', streams => 20, events => 10_000 }, { prefix => 'order-', streams => 80_000, events => 10 });
my %common = (group => 'read', clients => [1], sync => ['off'], seed => \@million, reads => 1);

sub size_of
{
	my ($tables, $count) = @_;

	return sub {
		my ($bench, $contender) = @_;
		my $bytes = 0;
		$bytes += $bench->store_sql($contender, <<"SQL") foreach @$tables;
SELECT sum(pg_total_relation_size(t)) FROM (SELECT '$_'::regclass UNION SELECT relid FROM pg_partition_tree('$_')) t (t)
SQL
		return { bytes => $bytes / $bench->store_sql($contender, "SELECT count(*) FROM $count"), errors => 0 };
	};
}

return (
	{
		%common,
		title => 'read a stream of 10,000',
		unit => 10_000,
		client => "\\set s random(1000000, 1000019)\n",
		contenders => [
			{ store => 'plain', label => 'plain SELECT', sql => "SELECT * FROM event WHERE stream_id = 'account-' || :s ORDER BY version;" },
			{ store => 'eventstore', label => 'es_read_stream', sql => "SELECT * FROM es_read_stream('account-' || :s);" },
			{ store => 'emmett', vars => { partition => 'emt:default' }, sql => <<'SQL' },
SELECT stream_id, stream_position, global_position, message_data, message_metadata, message_schema_version, message_type, message_id
FROM emt_messages WHERE stream_id = 'account-' || :s AND partition = :partition AND is_archived = FALSE ORDER BY stream_position ASC;
SQL
		],
		wants => [ { is => 'rate', than => 'plain', least => 0.9 } ],
	},
	{
		%common,
		title => 'read all, 1,000 at a time',
		unit => 1000,
		client => "\\set n (:n + 1000) % 1000000\n",
		contenders => [
			{ store => 'plain', label => 'plain SELECT', sql => 'SELECT * FROM event WHERE position > :n ORDER BY position LIMIT 1000;' },
			{ store => 'eventstore', label => 'es_read_all', sql => 'SELECT * FROM es_read_all(:n);' },
		],
		wants => [ { is => 'rate', than => 'plain', least => 0.9 } ],
	},
	{
		%common,
		title => 'bytes per event of a million',
		group => 'size',
		rounds => 1,
		shows => 'bytes',
		contenders => [
			{ store => 'plain', label => 'plain table', measure => size_of(['event'], 'event') },
			{ store => 'eventstore', measure => size_of(['es_event'], 'es_event') },
			{ store => 'emmett', measure => size_of([ 'emt_messages', 'emt_streams' ], 'emt_messages') },
			{ store => 'head', measure => size_of([ 'event', 'stream' ], 'event') },
		],
		wants => [ { is => 'bytes', than => 'plain', most => 1.15 } ],
	});
