# Blind retries.  Clients lose their connection around COMMIT and cannot know
# whether the append took place, so they repeat it, with the same event ids,
# until they get an answer.  No event may be there twice, and every answer
# must be the one that the first, unheard, try was about to give.
#
# Synchronous replication to a standby that does not exist makes each commit
# wait after it is done; terminated there, the session has committed and its
# client hears nothing.  Others are terminated wherever they happen to be.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EsTest;
use IPC::Run ();
use PostgreSQL::Test::Utils;
use Test::More;

my $clients = 4;
my $appends = $ENV{ES_APPENDS} || 60;    # of each client; a multiple of 3
my $node = new_store('main', undef, allows_streaming => 1);

# What a client does for its n-th append: single, in a transaction, or a batch.
sub append_sql
{
	my ($client, $n) = @_;
	my $id = sprintf '%08d-0000-4000-8000-%012d', $client, $n;
	my $second = sprintf '%08d-0000-4000-9000-%012d', $client, $n;
	my $data = qq('{"client": $client, "n": $n}');
	my $single =
	  "SELECT es_append('shared-%d', 'Retried', $data, event_id => '$id')";

	return (
		sprintf($single, 1),
		"BEGIN; " . sprintf($single, 2) . "; COMMIT",
		"SELECT es_append_batch('shared-3', '{First,Second}', ARRAY[$data, $data]::jsonb[],
			event_ids => '{$id,$second}')")[ $n % 3 ];
}

# Each client is a shell that asks psql until it succeeds, for one append after
# the other.  It prints the answer and how many tries it took.
sub start_client
{
	my ($client) = @_;
	my $file = $node->basedir . "/client$client";
	my $script = '';

	foreach my $n (1 .. $appends)
	{
		my $sql = append_sql($client, $n);

		$script .= <<SHELL;
tries=1
until answer=\$(psql -XAtq -v ON_ERROR_STOP=1 -f - 2>> $file.err <<'SQL'
$sql;
SQL
); do
	tries=\$((tries + 1))
	test \$tries -le 200 || exit 1
done
echo "$n \$answer \$tries"
SHELL
	}
	append_to_file("$file.sh", $script);
	local %ENV = (
		$node->_get_env(),
		PGDATABASE => 'postgres',
		PGAPPNAME => 'retrying');
	return {
		file => $file,
		run => IPC::Run::start(
			[ 'sh', "$file.sh" ], '>', "$file.out",
			IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default))
	};
}

# Terminate those that wait for the standby, and some that do not.
my $killer = psql_start(
	$node, q(
	SET synchronous_commit = local;
	CREATE TABLE stop ();
	DO $$
	BEGIN
		WHILE EXISTS (SELECT FROM pg_class WHERE relname = 'stop') LOOP
			PERFORM pg_terminate_backend(pid) FROM pg_stat_activity
				WHERE application_name = 'retrying'
				AND (wait_event = 'SyncRep' OR random() < 0.05);
			PERFORM pg_stat_clear_snapshot();
			PERFORM pg_sleep(0.002);
		END LOOP;
	END $$;));
$node->poll_query_until('postgres', q(SELECT to_regclass('stop') IS NOT NULL));
$node->safe_psql('postgres',
	q(ALTER SYSTEM SET synchronous_standby_names = 'nobody'));
$node->reload;
$node->poll_query_until('postgres',
	q(SELECT current_setting('synchronous_standby_names') = 'nobody'));

my @running = map { start_client($_) } 1 .. $clients;
my (%answer, $tries);
foreach my $client (1 .. $clients)
{
	my $run = $running[ $client - 1 ];

	IPC::Run::finish($run->{run});
	foreach (split /\n/, slurp_file("$run->{file}.out"))
	{
		my ($n, $answer, $needed) = split / /;

		$answer{"$client.$n"} = $answer;
		$tries += $needed;
	}
}
$node->safe_psql('postgres', 'ALTER SYSTEM RESET synchronous_standby_names');
$node->reload;
$node->safe_psql('postgres',
	'SET synchronous_commit = local; DROP TABLE stop');
psql_finish($killer);

my $total = $clients * $appends;
my $lost = () =
  slurp_file($node->logfile) =~
  /canceling the wait for synchronous replication and terminating/g;

note "$total appends took $tries tries; $lost commits went unheard";
is(keys %answer, $total, 'every append was answered in the end');
cmp_ok($tries, '>', $total, 'many were tried more than once');
cmp_ok($lost, '>', $total / 4, 'many of them after they had committed');

# One event for each append, two for a batch.
is( $node->safe_psql(
		'postgres', q(
		SELECT stream_id, count(*), count(DISTINCT event_id), max(version)
		FROM es_event GROUP BY 1 ORDER BY 1)),
	join("\n", map { join '|', "shared-$_->[0]", ($_->[1]) x 3 }
		  [ 1, $total / 3 ], [ 2, $total / 3 ], [ 3, $total / 3 * 2 ]),
	'nothing is there twice');

# The last event of each append has the version that was answered.
my %stored = $node->safe_psql(
	'postgres', q(
	SELECT (data ->> 'client') || '.' || (data ->> 'n'), max(version)
	FROM es_event GROUP BY 1)) =~ /^(\S+)\|(\d+)$/mg;
is_deeply(\%answer, \%stored, 'every answer was right');

# So is the answer to whoever asks later, and nothing is added.
my $before = store_hash($node, 'postgres');
my @wrong;
foreach my $client (1 .. $clients)
{
	my $session = $node->background_psql('postgres');

	foreach my $n (map { $_ * 7 } 1 .. 8)
	{
		my $again = query_quietly($session, append_sql($client, $n));

		push @wrong, "$client.$n" if $again ne $stored{"$client.$n"};
	}
	$session->quit;
}
is("@wrong", '', 'and is the same later');
is(store_hash($node, 'postgres'), $before, 'retries append nothing');
store_is_sound($node, 'store');
report_figures(faults => $tries - $total, lost => $total - keys %answer, doubled => scalar @wrong);

$node->stop;
done_testing();
