# One event per transaction, to a stream that is new and to one that is there.  Any version is expected; plain INSERT is
# told the version by its client.
package Bench::Work::append;

use strict;
use warnings;
use Bench::Work;

sub contenders
{
	my ($stream, $version) = @_;

	return [
		{ store => 'plain', sql => <<"SQL" },
INSERT INTO event (stream_id, version, event_type, data) VALUES ($stream, $version, :type, :data);
SQL
		{ store => 'eventstore', sql => <<"SQL" },
SELECT es_append($stream, :type, :data);
SQL
		{ store => 'emmett', vars => { partition => 'emt:default' }, sql => <<"SQL" },
SELECT * FROM emt_append_to_stream(ARRAY[gen_random_uuid()::text], ARRAY[:data]::jsonb[], ARRAY['{}']::jsonb[],
	ARRAY['1'], ARRAY[:type], ARRAY['E'], $stream, 'account', NULL, :partition);
SQL
		{ store => 'advisory', sql => "SELECT append($stream, :type, :data);" },
		{ store => 'head', sql => "SELECT append($stream, :type, :data);" },
	];
}

my $wants = [
	{ is => 'rate', than => 'plain', least => 1.0 },
	{ is => 'rate', than => 'peers', least => 2.0 },
	{ is => 'cpu', than => 'plain', most => 1.1 },
];

return (
	{
		title => 'append, new stream',
		group => 'append',
		client => "\\set id random(1000000000000000000, 9000000000000000000)\n",
		contenders => contenders(q('order-' || :id), '1'),
		wants => $wants,
	},
	{
		title => 'append, existing stream',
		group => 'append',
		client => existing_stream(1),
		contenders => contenders(q('account-' || :s), ':v'),
		wants => $wants,
	});
