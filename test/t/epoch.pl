# Which history a position belongs to: a lagging standby that is promoted, a
# restore to a point in time, a template copy, a restored dump.  What was told
# before must be refused, or lead to the same events; nothing is skipped in
# silence.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EsTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $primary = new_store('primary', "archive_timeout = 0\n",
	allows_streaming => 1, has_archiving => 1);
my $epoch = $primary->safe_psql('postgres', 'SELECT epoch FROM es_store()');

is($epoch, '1', 'the first epoch');

# All that a consumer of one server was told: position and event id.
sub events
{
	my ($node, $from, %opt) = @_;
	my $db = $opt{db} // 'postgres';
	my $given = $opt{epoch} // 'NULL';
	my %events;

	my $rows = $node->safe_psql($db,
		"SELECT position, event_id FROM es_read_all($from, NULL, epoch => $given)");
	%events = map { split /\|/ } split /\n/, $rows;
	return \%events;
}

# A consumer who was told all of %$told goes on at another server, from the
# last position or from where it is sent.  Answers (was it refused, what it
# knows in the end, where it had to begin).
sub go_on
{
	my ($node, $told, %opt) = @_;
	my $db = $opt{db} // 'postgres';
	my ($last) = sort { $b <=> $a } keys %$told, 0;
	my ($status, undef, $stderr) = $node->psql($db,
		"\\set VERBOSITY verbose\nSELECT count(*) FROM es_read_all($last, 1, epoch => $epoch)",
		on_error_stop => 1);
	my $from = $last;

	if ($status != 0)
	{
		die $stderr unless $stderr =~ /55000: position $last belongs to a history/;
		($from) = $stderr =~ /Go on from position (\d+)/;
	}
	my %known = map { $_ => $told->{$_} } grep { $_ <= $from } keys %$told;
	my $more = events($node, $from, db => $db);
	return ($status != 0, { %known, %$more }, $from, $last);
}

# The consumer has exactly what the server has.
sub is_whole
{
	my ($node, $known, $name, %opt) = @_;

	is_deeply($known, events($node, 0, %opt), $name);
}

# A consumer of a subscription that knows events by their positions, and has each
# only once.  It fetches in its epoch until there is no more; answers what it
# has, or undef where it is refused.
sub consume
{
	my ($node, $known, $in_epoch, $ack_last) = @_;

	while (1)
	{
		my ($status, $rows, $stderr) = $node->psql('postgres',
			"\\set VERBOSITY verbose\nSELECT token, position, event_id FROM es_fetch('sub', 'c', 40, epoch => $in_epoch)",
			on_error_stop => 1);
		if ($status != 0)
		{
			die $stderr unless $stderr =~ /55000: epoch \d+ was left/;
			my ($from) = $stderr =~ /told above position (\d+)/;
			delete $known->{$_} for grep { $_ > $from } keys %$known;
			return undef;
		}
		return $known if $rows eq '';
		my $token;
		for (split /\n/, $rows)
		{
			my ($t, $position, $id) = split /\|/;
			$token = $t;
			$known->{$position} //= $id;
		}
		return $known if !$ack_last && $rows =~ tr/\n// < 39;
		$node->safe_psql('postgres', "SELECT es_ack('sub', '$token')");
	}
}

# Promotion, again and again: appends that the standby may not get in time,
# holes, transactions left open.
my $rounds = $ENV{ES_PROMOTIONS} // 3;
my $refused = 0;
my $consumed = {};
$primary->safe_psql('postgres', "SELECT es_create_subscription('sub', epoch => $epoch)");
for my $round (1 .. $rounds)
{
	my $name = "standby$round";
	my $standby = PostgreSQL::Test::Cluster->new($name);
	my $lag = 1 + int rand 40;

	$primary->backup("base$round");
	$standby->init_from_backup($primary, "base$round", has_streaming => 1);
	$standby->start;
	$primary->safe_psql('postgres', 'SELECT es_settle()') if rand() < 0.7;
	$primary->safe_psql('postgres', q(BEGIN; SELECT es_append('x-1', 'Undone', '{}'); ROLLBACK)) if rand() < 0.5;

	# One that is under way while the others commit, and commits where the
	# standby no longer looks.
	my $open = $primary->background_psql('postgres');
	$open->query_safe(qq(BEGIN; SELECT es_append('open-$round', 'Late', '{}')));
	$primary->safe_psql('postgres',
		"SELECT es_append('a-' || n % 7, 'Seen', to_jsonb(n)) FROM generate_series(1, 25) n");
	consume($primary, $consumed, $epoch, rand() < 0.5) or die 'refused';
	$primary->wait_for_catchup($standby);
	$standby->stop('immediate');
	$open->query_safe('COMMIT');
	$open->quit;
	$primary->safe_psql('postgres',
		"SELECT es_append('a-' || n % 7, 'Lost', to_jsonb(n)) FROM generate_series(1, $lag) n");
	consume($primary, $consumed, $epoch, rand() < 0.5) or die 'refused';
	my $told = events($primary, 0);

	# The old primary goes, the standby without its last events takes over.
	$primary->stop('immediate');
	$standby->start;
	$standby->promote;
	my $read_only = $standby->safe_psql('postgres', 'BEGIN READ ONLY; SELECT epoch FROM es_store()');
	is($read_only, $epoch, "round $round: a transaction that may not write knows the epoch before");
	my ($early) = go_on($standby, $told);
	ok($early, "round $round: refused before the first append");
	$standby->safe_psql('postgres',
		"SELECT es_append('b-1', 'Other', to_jsonb(n)) FROM generate_series(1, 60) n");
	my ($was_refused, $known, $from, $last) = go_on($standby, $told);
	$refused++ if $was_refused;
	ok($was_refused && $from < $last, "round $round: refused after it, back from $last to $from");
	is_whole($standby, $known, "round $round: and then nothing is missed");
	my $next = $standby->safe_psql('postgres', 'SELECT epoch FROM es_store()');
	cmp_ok($next, '>', $epoch, "round $round: a new epoch");
	store_is_sound($standby);

	# The subscription: neither in the old epoch nor in none.
	sqlstate_is($standby, q(SELECT count(*) FROM es_fetch('sub', 'c')), '55000',
		"round $round: the subscription remembers its epoch");
	is(consume($standby, $consumed, $epoch), undef, "round $round: a consumer of before is refused");
	is_whole($standby, consume($standby, $consumed, $next, 1), "round $round: and has everything in the end");

	# What was told up to the fork is good for ever.
	is($standby->safe_psql('postgres', "SELECT count(*) > 0 FROM es_read_all($from, NULL, epoch => $epoch)"),
		't', "round $round: the fork itself is common ground");
	$primary = $standby;
	$epoch = $next;
	$primary->append_conf('postgresql.conf', "archive_mode = off\n") if $round == $rounds;
}
print "# $refused of $rounds consumers refused after a promotion, none skipped\n";

# Standbys read the epochs of their primary.
my $follower = PostgreSQL::Test::Cluster->new('follower');
$primary->backup('base');
$follower->init_from_backup($primary, 'base', has_streaming => 1);
$follower->start;
is($follower->safe_psql('postgres', 'SELECT epoch FROM es_store()'), $epoch, 'a standby is in the epoch of its primary');
$follower->stop;

# Back to a point in time.
my $pitr = PostgreSQL::Test::Cluster->new('pitr');
my $target = $primary->safe_psql('postgres', 'SELECT es_settle(); SELECT pg_create_restore_point(\'here\')');
$primary->safe_psql('postgres',
	"SELECT es_append('after-1', 'Undone', to_jsonb(n)) FROM generate_series(1, 10) n");
my $told = events($primary, 0);
$pitr->init_from_backup($primary, 'base', has_streaming => 1);
$pitr->append_conf('postgresql.conf', <<'CONF');
recovery_target_name = 'here'
recovery_target_action = 'promote'
CONF
$pitr->start;
$pitr->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()') or die 'no promotion';
$pitr->safe_psql('postgres', "SELECT es_append('again-1', 'Other', to_jsonb(n)) FROM generate_series(1, 50) n");
my ($was_refused, $known) = go_on($pitr, $told);
ok($was_refused, 'refused after a restore to a point in time');
is_whole($pitr, $known, 'and then nothing is missed');
$pitr->stop;

# A copy of the database beside it: the original goes on as it was.
$primary->safe_psql('template1', 'CREATE DATABASE copy TEMPLATE postgres');
$primary->safe_psql('postgres', "SELECT es_append('original-1', 'Happened', to_jsonb(n)) FROM generate_series(1, 10) n");
$primary->safe_psql('copy', "SELECT es_append('copy-1', 'Other', to_jsonb(n)) FROM generate_series(1, 30) n");
my ($stays) = go_on($primary, events($primary, 0));
ok(!$stays, 'the original of a copy keeps its epoch');
($was_refused, $known) = go_on($primary, events($primary, 0), db => 'copy');
ok($was_refused, 'the copy refuses what the original told after they parted');
is_whole($primary, $known, 'and then nothing is missed', db => 'copy');
my $of_copy = $primary->safe_psql('copy', 'SELECT epoch FROM es_store()');
sqlstate_is($primary, "SELECT es_read_all(0, epoch => $of_copy)", '55000', "the copy's epoch is unknown to the original");

# A dump, restored.
my $dump = $primary->basedir . '/dump.sql';
$primary->command_ok([ 'pg_dump', '-f', $dump, '-d', $primary->connstr('postgres') ], 'dump');
$primary->safe_psql('postgres', 'CREATE DATABASE restored');
$primary->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-o', '/dev/null', '-f', $dump, '-d', $primary->connstr('restored') ], 'restore');
$primary->safe_psql('postgres', "SELECT es_append('original-1', 'Happened', to_jsonb(n)) FROM generate_series(1, 10) n");
$primary->safe_psql('restored', "SELECT es_append('restored-1', 'Other', to_jsonb(n)) FROM generate_series(1, 30) n");
($was_refused, $known) = go_on($primary, events($primary, 0), db => 'restored');
ok($was_refused, 'a restored dump refuses what came after it was taken');
is_whole($primary, $known, 'and then nothing is missed', db => 'restored');
is($primary->safe_psql('restored', 'SELECT count(DISTINCT store_id) FROM es_epoch'), '1', 'it is the same store');

report_figures(faults => $rounds + 3, lost => $rounds - $refused);
done_testing();
