# What a consumer of logical decoding gets per second: the output plugin, in both formats, beside wal2json, from slots that
# are copies of one, so that all decode the same WAL.  pg_recvlogical takes the lines and throws them away.
#
# Left out, and said so, where the server has no wal2json (Debian's postgresql-15-wal2json).
package Bench::Work::decoding;

use strict;
use warnings;
use Bench::Work;
use Time::HiRes qw(time);

my $payload = payload();
my %contents = (
	'1,000 events a transaction' => { events => 100_000, sql => <<"SQL" },
DO \$\$ BEGIN FOR i IN 1 .. 100 LOOP
	PERFORM es_append_batch('decoded-' || i, array_fill('Deposited'::text, ARRAY[1000]), array_fill('$payload'::jsonb, ARRAY[1000]));
	COMMIT;
END LOOP; END \$\$
SQL
	'an event a transaction' => { events => 10_000, sql => <<"SQL" },
DO \$\$ BEGIN FOR i IN 1 .. 10000 LOOP
	PERFORM es_append('decoded-' || i % 100, 'Deposited', '$payload');
	COMMIT;
END LOOP; END \$\$
SQL
	# each event beside ten rows that are none of ours
	'among other tables' => { events => 5_000, sql => <<"SQL" },
DO \$\$ BEGIN FOR i IN 1 .. 5000 LOOP
	PERFORM es_append('decoded-' || i % 100, 'Deposited', '$payload');
	INSERT INTO other SELECT i, '$payload' FROM generate_series(1, 10);
	IF i % 10 = 0 THEN COMMIT; END IF;
END LOOP; END \$\$
SQL
);

my @plugins = (
	{ key => 'wal2json', plugin => 'wal2json', options => [ 'format-version=2', 'include-transaction=off', 'add-tables=eventstore.es_event' ] },
	{ key => 'plain', plugin => 'eventstore', options => ['format=plain'] },
	{ key => 'cloudevents', plugin => 'eventstore', options => ['format=cloudevents'] });

# Let one plugin decode its copy of the slot.
sub decode
{
	my ($bench, $plugin, $events, $until) = @_;

	my $server = $bench->{server};
	$server->sql(sql => "SELECT pg_copy_logical_replication_slot('content', 'copy', false, '$plugin->{plugin}')");
	my ($began, $cpu) = (time, $server->cpu_seconds);
	my ($status, $output) = $server->client('pg_recvlogical',
		[ '-d', 'bench', '-S', 'copy', '--start', '--no-loop', '-f', '/dev/null', '--endpos', $until, map { ('-o', $_) } @{ $plugin->{options} } ]);
	my $seconds = time - $began;
	die $output if $status != 0;
	$server->wait_for_quiet;
	select undef, undef, undef, 0.1;
	$cpu = $server->cpu_seconds - $cpu;
	$server->sql(sql => "SELECT pg_drop_replication_slot('copy')");
	return { rate => $events / $seconds, cpu => $cpu / $events, errors => 0 };
}

# All plugins in turn over one content, first those of $first.
sub decode_all
{
	my ($bench, $contender, $content, $first) = @_;

	my $server = $bench->{server};
	my %figures;
	$server->with_setting(wal_level => 'logical', sub {
		# newer releases want to be told which plugins they may load
		$server->sql(sql => 'ALTER SYSTEM SET output_plugin_libraries = eventstore, wal2json')
		  if $server->sql(sql => q(SELECT count(*) FROM pg_settings WHERE name = 'output_plugin_libraries'));
		$server->sql(sql => 'SELECT pg_reload_conf()');
		$server->sql(sql => 'SELECT pg_sleep(0.2)');
		$server->sql(sql => "SELECT pg_create_logical_replication_slot('content', 'eventstore')");
		$bench->store_sql($contender, 'SET client_min_messages = warning; CREATE TABLE IF NOT EXISTS other (n int, t text)');
		$bench->store_sql($contender, $content->{sql});
		my $until = $server->sql(sql => 'SELECT pg_current_wal_insert_lsn()');
		$server->sql(sql => 'SELECT txid_current()');
		$figures{ $_->{key} } = decode($bench, $_, $content->{events}, $until)
		  foreach sort { ($b->{key} eq $first) <=> ($a->{key} eq $first) } @plugins;
		$server->sql(sql => "SELECT pg_drop_replication_slot('content')");
	});
	return \%figures;
}

sub measure
{
	my ($content) = @_;

	my $figures = {};
	return sub {
		my ($bench, $contender) = @_;
		$figures = decode_all($bench, $contender, $content, $contender->{key}) unless $figures->{ $contender->{key} };
		return delete $figures->{ $contender->{key} };
	};
}

sub has_wal2json
{
	my $config = $ENV{PG_CONFIG} || 'pg_config';
	chomp(my $dir = qx($config --pkglibdir));
	return 1 if -e "$dir/wal2json.so";
	warn "# this server has no wal2json: nothing to compare decoding with\n";
	return 0;
}

sub piece
{
	my ($title) = @_;

	my $measure = measure($contents{$title});
	return {
		title => "decode, $title",
		group => 'decoding',
		clients => [1],
		sync => ['off'],
		seed => [ { prefix => 'account-', streams => 1, events => 1 } ],
		contenders => [ map { { store => 'eventstore', key => $_->{key}, label => $_->{key}, measure => $measure } } @plugins ],
		wants => [ map { { is => 'rate', of => $_, than => 'wal2json', least => 0.8 } } qw(plain cloudevents) ],
	};
}

# Without wal2json there is one contender, which of_stores leaves out.
return has_wal2json() ? map { piece($_) } sort keys %contents : { title => 'decode', group => 'decoding', contenders => [], wants => [] };
