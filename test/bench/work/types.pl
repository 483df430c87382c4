# Event types: what a check of two terms costs an append, and how fast stored events are shown in their newest form.
package Bench::Work::types;

use strict;
use warnings;
use Bench::Work;

# The declarations and the streams are there from the first slice on; the unchecked type stays as it is.
sub with_types
{
	my ($bench, $contender, $setting) = @_;

	$bench->store_sql($contender, "SELECT declare_types('" . payload() . "')");
	return $bench->measure_pgbench($contender, $setting);
}

sub append
{
	my ($key, $label, $type) = @_;

	return { key => $key, store => 'eventstore', label => $label, measure => \&with_types, sql => "SELECT es_append('account-' || :s, '$type', :data);" };
}

sub batch
{
	my ($key, $label, $type) = @_;

	my $data = payload();
	return { key => $key, store => 'eventstore', label => $label, measure => \&with_types, sql => <<"SQL" };
SELECT es_append_batch('account-' || :s, array_fill('$type'::text, '{100}'), array_fill('$data'::jsonb, '{100}'));
SQL
}

# Counted on the server, so that the way to the client is in neither.
sub reading
{
	my ($key, $label, $stream, $more) = @_;

	return { key => $key, store => 'eventstore', label => $label, measure => \&with_types, sql => "SELECT count(data) FROM es_read_stream('$stream'$more);" };
}

my %reads = (
	group => 'types',
	clients => [1],
	sync => ['off'],
	seed => [ { prefix => 'order-', streams => 1, events => 1 } ],
	reads => 1,
	unit => 10_000);

return (
	{
		title => 'append, checked by two terms',
		group => 'types',
		clients => [1],
		client => existing_stream(1),
		contenders => [ append('plain', 'not declared', 'Deposited'), append('checked', 'with a check', 'Checked') ],
		wants => [
			{ is => 'cost', of => 'checked', than => 'plain', most => 1.1 },
			{ is => 'cpu', of => 'checked', than => 'plain', most => 1.1 },
		],
	},
	{
		title => 'append 100 at once, checked by two terms',
		group => 'types',
		clients => [1],
		sync => ['off'],
		unit => 100,
		client => existing_stream(100),
		contenders => [ batch('plain', 'not declared', 'Deposited'), batch('checked', 'with a check', 'Checked') ],
		wants => [],
	},
	{
		%reads,
		title => 'read 10,000 older events',
		contenders => [
			reading('raw', 'as stored', 'one-1', ', raw => true'),
			reading('one', 'one version on', 'one-1', ''),
			reading('two', 'two versions on', 'two-1', ''),
			{ key => 'state', store => 'eventstore', label => 'es_state', measure => \&with_types, sql => "SELECT es_state('one-1');" },
		],
		wants => [
			{ is => 'pace', of => 'one', least => 300_000 },
			{ is => 'pace', of => 'two', least => 300_000 },
			{ is => 'pace', of => 'state', least => 300_000 },
		],
	});
