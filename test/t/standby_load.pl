# A standby, and a standby of that one, read along the log while sixteen writers
# do their worst, the worker writes the settled position down, and the archiver
# takes away what is old.  No event is skipped, the order is the primary's, and
# a reader that gets in the way of replay is told so, never answered short.
# ES_SECONDS says how long (3).
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EsTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

my $seconds = $ENV{ES_SECONDS} // 3;
my $primary = new_store('primary', "shared_preload_libraries = 'eventstore'\nmax_worker_processes = 12\nmax_connections = 40\n",
	allows_streaming => 1);
my $standby = PostgreSQL::Test::Cluster->new('standby');
my $cascaded = PostgreSQL::Test::Cluster->new('cascaded');
my $impatient = PostgreSQL::Test::Cluster->new('impatient');

$primary->backup('base');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->append_conf('postgresql.conf', 'max_standby_streaming_delay = -1');
$standby->start;
$cascaded->init_from_backup($primary, 'base');
$cascaded->enable_streaming($standby);
$cascaded->append_conf('postgresql.conf', 'max_standby_streaming_delay = -1');
$cascaded->start;
$impatient->init_from_backup($primary, 'base', has_streaming => 1);
$impatient->append_conf('postgresql.conf', "max_standby_streaming_delay = 0\nhot_standby_feedback = off\n");
$impatient->start;

# ----- a commit that is on the standby before it is seen on the primary -----

# It waits for a standby that does not exist, its commit record written: the
# standby shows it, the primary does not yet.
sub positions
{
	return join ' ', split /\n/, $_[0]->safe_psql('postgres', 'SELECT position FROM es_read_all(0, NULL)');
}

sub append
{
	$primary->safe_psql('postgres', "SET synchronous_commit = local; SELECT es_append('$_[0]', 'Happened', '{}')");
}

sub wait_for_sync
{
	my ($n) = @_;

	$primary->poll_query_until('postgres',
		"SELECT count(*) = $n FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND backend_type = 'client backend'")
	  or die 'nobody waits';
	$primary->wait_for_catchup($standby);
}

append('calm-1');
my $open = $primary->background_psql('postgres');
$open->query_safe(q(SET synchronous_commit = local; BEGIN; SELECT es_append('open-1', 'Undone', '{}')));
$primary->append_conf('postgresql.conf', "synchronous_standby_names = 'nobody'");
$primary->reload;
my $waits = psql_start($primary, q(SET synchronous_commit = on; SELECT es_append('slow-1', 'Happened', '{}');));
wait_for_sync(1);
append('calm-2');
$primary->wait_for_catchup($standby);
is(positions($primary), '1', 'the primary stops at an open append');
is(positions($standby), '1', 'so does the standby, which has the events behind it');
$open->query_safe('ROLLBACK');
$open->quit;
$primary->safe_psql('postgres', 'SET synchronous_commit = local; SELECT es_settle()');
$primary->wait_for_catchup($standby);
is(positions($primary), '1', 'the primary waits for a commit that is on its way');
is(positions($standby), '1 3 4', 'the standby has seen it commit');
$primary->append_conf('postgresql.conf', "synchronous_standby_names = ''");
$primary->reload;
psql_finish($waits);
is(positions($primary), '1 3 4', 'and that is the order on the primary, too');

# ----- under load -----

my @readers;
foreach my $node ($standby, $cascaded)
{
	foreach my $level ('READ COMMITTED', 'REPEATABLE READ')
	{
		push @readers, { node => $node, name => $node->name . ", $level", level => $level,
			session => $node->background_psql('postgres'), last => 0, got => [], polls => [] };
	}
}

sub poll
{
	my ($reader) = @_;
	my @rows = split /\n/,
	  query_quietly($reader->{session},
		"BEGIN ISOLATION LEVEL $reader->{level};\nSELECT position FROM es_read_all($reader->{last}, 2000);\nCOMMIT;");

	push @{ $reader->{got} }, @rows;
	$reader->{last} = $rows[-1] if @rows;
	push @{ $reader->{polls} }, [ time, $reader->{last} ];
	return scalar @rows;
}

# The whole log by one who is in the way of replay: how far is settled, how many
# events, up to where, and which, all by one snapshot that was taken before.
my $whole = <<'SQL';
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT es_settled_position() AS settled \gset
SELECT pg_sleep(0.05) \g /dev/null
SELECT :settled, count(*), max(position), md5(string_agg(position::text, ' ')) FROM es_read_all(0, NULL);
COMMIT;
SQL
my (@answers, $conflicts, @others);
sub read_whole
{
	my ($reader) = @_;
	my ($ok, $out, $err) = psql_finish($reader);

	chomp $out;
	return push @answers, $out if $ok;
	return $conflicts++ if $err =~ /40001: .*conflict with recovery|terminating connection due to conflict with recovery/;
	push @others, $err;
}

my $load = start_load($primary, 16, $seconds);
my ($running, $turn) = (1, 0);
while ($running)
{
	poll($_) foreach @readers;
	if (++$turn % 3 == 0)
	{
		my $reader = psql_start($impatient, $whole);

		$primary->safe_psql('postgres', 'CALL es_archive(es_settled_position() - 1000, segment_events => 500)');
		$primary->safe_psql('postgres', 'VACUUM es_event, es_settled, es_archive_segment');
		read_whole($reader);
	}
	$running = is_running($load);
}
finish_load($load);
$primary->safe_psql('postgres', 'SELECT es_settle()');
$primary->wait_for_catchup($_) foreach $standby, $impatient;
my $lsn = $primary->lsn('write');
$cascaded->poll_query_until('postgres', "SELECT pg_last_wal_replay_lsn() >= '$lsn'") or die 'no replay';

my @events;
my %recorded;
foreach (split /\n/, $primary->safe_psql('postgres',
	'SELECT position, extract(epoch FROM recorded_at) FROM es_event_all ORDER BY position'))
{
	my ($position, $at) = split /\|/;
	push @events, $position;
	$recorded{$position} = $at;
}
my $drawn = $primary->safe_psql('postgres', 'SELECT last_value FROM es_event_position_seq');
foreach my $reader (@readers)
{
	my @lags;
	my $next = 0;

	# How long the first event that it had not seen had been there, if it had
	# been there: its writer's pauses before it committed included.
	foreach my $poll (@{ $reader->{polls} })
	{
		my ($when, $last) = @$poll;

		$next++ while $next < @events && $events[$next] <= $last;
		my $lag = $next < @events ? $when - $recorded{ $events[$next] } : 0;
		push @lags, $lag > 0 ? $lag : 0;
	}
	@lags = sort { $a <=> $b } @lags;
	1 while poll($reader);
	$reader->{session}->quit;
	is(md5_of($reader->{got}), md5_of(\@events), "$reader->{name}: the primary's events, all, once, in order");
	note sprintf '%s: %d events, %d holes; behind by %.0f ms in the middle, %.0f ms at 99 of 100 polls, %.0f ms at most, writers\' pauses included',
	  $reader->{name}, scalar @events, $drawn - @events, map { 1000 * $lags[ $_ * $#lags ] } 0.5, 0.99, 1;
}

sub md5_of
{
	require Digest::MD5;
	return scalar(@{ $_[0] }) . ' ' . Digest::MD5::md5_hex("@{ $_[0] }");
}

# What the impatient one answered was whole.
is("@others", '', 'a reader in the way of replay meets no other error');
my $short = 0;
foreach my $answer (@answers)
{
	my ($settled, $count, $max, $md5) = split /\|/, $answer;
	my @should = grep { $_ <= ($max || 0) } @events;

	$short++ if @should != $count || (md5_of(\@should) =~ s/.* //r) ne $md5
	  || grep { $_ > ($max || 0) && $_ <= $settled } @events;
}
is($short, 0, 'and is answered in full, or not at all');
note sprintf '%d answers, %d conflicts with recovery', scalar @answers, $conflicts // 0;
cmp_ok(@answers + ($conflicts // 0), '>', 0, 'it did ask');

$_->stop foreach $cascaded, $impatient, $standby;
done_testing();
