# States and commands: the fold of a long stream in four ways, what snapshots save, and a command in one call beside the
# append alone and beside a client that loads the stream and appends.
package Bench::Work::commands;

use strict;
use warnings;
use FindBin qw($RealBin);
use Bench::Server;
use Bench::Work;

my %common = (
	group => 'commands',
	clients => [1],
	sync => ['off'],
	seed => [ { prefix => 'order-', streams => 1, events => 1 } ],
	reads => 1);

# The streams are there from the first slice on.
sub folds
{
	my ($bench, $contender, $setting) = @_;

	$bench->store_sql($contender, "SELECT fill_folds('" . payload() . "')");
	return $contender->{node} ? by_node(@_) : $bench->measure_pgbench($contender, $setting);
}

# A client in another language: reads the events of the stream and folds them itself.
sub by_node
{
	my ($bench, $contender, $setting) = @_;

	local %ENV = $bench->{server}->client_env(db => $contender->{db}, schema => $contender->{store}, user => Bench::Server::APP);
	my $rate = qx(node $RealBin/lib/fold.mjs account-long $bench->{seconds});
	die "the Node client failed\n" if $? != 0;
	return { rate => $rate, cpu => 0, errors => 0 };
}

# The snapshots that plain appends make due are taken before each slice, as a scheduler takes them all the time.
sub commands
{
	my ($bench, $contender, $setting) = @_;

	$bench->store_sql($contender, 'SELECT es_take_snapshots(1000000)') foreach 1 .. 3;
	return $bench->measure_pgbench($contender, $setting);
}

my $node = -d "$RealBin/node_modules/pg";

return (
	{
		%common,
		title => 'fold a stream of 10,050',
		unit => 10_050,
		contenders => [
			{ key => 'loop', store => 'eventstore', label => 'PL/pgSQL loop', measure => \&folds, sql => "SELECT fold_by_loop('account-long');" },
			{ key => 'state', store => 'eventstore', label => 'es_state', measure => \&folds, sql => "SELECT es_state('account-long', aggregate => 'unkept');" },
			{ key => 'aggregate', store => 'eventstore', label => 'SQL aggregate', measure => \&folds, sql => <<'SQL' },
SELECT account_of(event_type, data ORDER BY version) FROM es_event WHERE stream_id = 'account-long';
SQL
			$node ? { key => 'node', store => 'eventstore', label => 'Node client', measure => \&folds, node => 1 } : (),
		],
		wants => [
			{ is => 'rate', of => 'state', than => 'loop', least => 1.0 },
			{ is => 'rate', of => 'state', than => 'aggregate', least => 3.0 },
			$node ? { is => 'rate', of => 'state', than => 'node', least => 5.0 } : (),
		],
	},
	{
		%common,
		title => 'es_state with snapshots',
		contenders => [
			{ key => 'short', store => 'eventstore', label => '10 events', measure => \&folds, sql => "SELECT es_state('account-short', aggregate => 'account');" },
			{ key => 'long', store => 'eventstore', label => '10,050 events, snapshots every 100', measure => \&folds, sql => "SELECT es_state('account-long', aggregate => 'account');" },
		],
		wants => [ { is => 'cost', of => 'long', than => 'short', most => 5.0 } ],
	},
	{
		title => 'a command on a stream of 100',
		group => 'commands',
		client => existing_stream(1),
		contenders => [
			{ store => 'eventstore', label => 'es_append', measure => \&commands, sql => q(SELECT es_append('account-' || :s, :type, :data);) },
			{ key => 'handle', store => 'eventstore', label => 'es_handle', measure => \&commands, sql => q(SELECT es_handle('account-' || :s, 'Deposit', :data);) },
			{ key => 'client', store => 'eventstore', label => 'load, then append', measure => \&commands, sql => <<'SQL' },
SELECT version, event_type, data FROM es_read_stream('account-' || :s);
SELECT es_append('account-' || :s, :type, :data);
SQL
		],
		wants => [
			{ is => 'rate', of => 'handle', than => 'eventstore', least => 0.7 },
			{ is => 'rate', of => 'handle', than => 'client', least => 2.0 },
		],
	});
