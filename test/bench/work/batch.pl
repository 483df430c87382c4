# Ten and a hundred events to one existing stream in one transaction.
#
# Plain INSERT is written in the two ways that a client has, arrays and a list of values; the faster is the baseline.
package Bench::Work::batch;

use strict;
use warnings;
use Bench::Work;
use Bench::Copy qw(measure_copy);

# A value list of that many rows; pgbench knows at most 255 parameters a statement, so that stream and type come once.
sub value_list
{
	my ($count) = @_;

	my $rows = join ', ', map { "($_, :data::jsonb)" } 0 .. $count - 1;
	return <<"SQL";
INSERT INTO event (stream_id, version, event_type, data)
SELECT 'account-' || :s, :v + n, :type, d FROM (VALUES $rows) AS e (n, d);
SQL
}

sub contenders
{
	my ($count) = @_;

	return (
		{ key => 'unnest', label => 'plain INSERT of arrays', store => 'plain', sql => <<'SQL' },
INSERT INTO event (stream_id, version, event_type, data)
SELECT 'account-' || :s, :v + n - 1, t, d FROM unnest(:types::text[], :datas::jsonb[]) WITH ORDINALITY AS e (t, d, n);
SQL
		{ key => 'values', label => 'plain INSERT of VALUES', store => 'plain', sql => value_list($count) },
		{ store => 'eventstore', sql => "SELECT es_append_batch('account-' || :s, :types, :datas);" },
		{ store => 'emmett', vars => { partition => 'emt:default' }, sql => <<'SQL' },
SELECT * FROM emt_append_to_stream(:ids::text[], :datas::jsonb[], :metadatas::jsonb[], :schemas::text[], :types::text[],
	:kinds::text[], 'account-' || :s, 'account', NULL, :partition);
SQL
		{ store => 'advisory', sql => "SELECT append_batch('account-' || :s, :types, :datas);" },
		{ store => 'head', sql => "SELECT append_batch('account-' || :s, :types, :datas);" });
}

sub piece
{
	my ($count) = @_;

	return {
		title => "append a batch of $count",
		group => 'batch',
		unit => $count,
		clients => [ 1, 4 ],
		sync => ['off'],
		client => existing_stream($count),
		vars => {
			types => text_array('Deposited', $count),
			datas => text_array(payload(), $count),
			metadatas => text_array('{}', $count),
			schemas => text_array('1', $count),
			kinds => text_array('E', $count),
			ids => text_array('01890a5d-ac96-774b-bcce-b302099a8057', $count),
		},
		contenders => [ contenders($count) ],
		wants => [
			{ is => 'rate', than => 'unnest', least => 1.5 },
			{ is => 'rate', than => 'values', least => 1.5 },
			{ is => 'rate', than => 'peers', least => 2.0 },
		],
	};
}

sub beside_copy
{
	my $piece = piece(100);
	my ($ours) = grep { $_->{store} eq 'eventstore' } @{ $piece->{contenders} };
	return {
		%$piece,
		title => 'append a batch of 100, beside COPY',
		clients => [1],
		contenders => [
			{ key => 'copy', label => 'COPY, 100 rows each', store => 'plain', measure => measure_copy('event', 100) },
			{ key => 'copy_all', label => 'COPY, all rows in one', store => 'plain', measure => measure_copy('event', 0) },
			{ %$ours, label => 'es_append_batch' },
			{ key => 'copy_es', label => 'COPY es_event, 100 rows each', store => 'eventstore', measure => measure_copy('es_event', 100) },
		],
		wants => [
			{ is => 'rate', than => 'copy', least => 1.0 },
			{ is => 'rate', than => 'copy_all', least => 1.0 },
		],
	};
}

return (piece(10), piece(100), beside_copy());
