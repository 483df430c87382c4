# What an append costs in a store of ten million events beside one of a hundred thousand: the clients' thousand streams
# lie scattered over the large one.  Loading takes minutes, so that it is run only when asked for.
package Bench::Work::big;

use strict;
use warnings;
use Bench::Work;

my %size = (
	'100 k' => { db => 'bench', vars => { stride => 1 }, seed => [ACCOUNTS] },
	'10 M' => { db => 'bench_big', vars => { stride => 100 }, seed => [ { %{ +ACCOUNTS }, streams => 100_000 } ] });

my %sql = (
	plain => q(INSERT INTO event (stream_id, version, event_type, data) VALUES ('account-' || :s, :v, :type, :data);),
	eventstore => q(SELECT es_append('account-' || :s, :type, :data);));

sub contender
{
	my ($store, $label, $size) = @_;

	return { %{ $size{$size} }, store => $store, key => "$store $size", label => "$label, $size", sql => $sql{$store} };
}

return ({
	title => 'append to 10 M events',
	group => 'big',
	asked => 1,
	fills => 'once',
	sync => ['off'],
	clients => [ 1, 16 ],
	client => existing_stream(1),
	contenders => [
		contender('eventstore', 'es_append', '100 k'),
		contender('eventstore', 'es_append', '10 M'),
		contender('plain', 'plain INSERT', '100 k'),
		contender('plain', 'plain INSERT', '10 M'),
	],
	wants => [
		{ is => 'cost', of => 'eventstore 10 M', than => 'eventstore 100 k', most => 1.2 },
		{ is => 'cpu', of => 'eventstore 10 M', than => 'eventstore 100 k', most => 1.2 },
	],
});
