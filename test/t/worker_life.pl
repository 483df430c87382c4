# Workers in a server that has too few processes, and in databases that come
# and go.
#
# Without a process for its worker a store works on: appends succeed, CALL
# es_run_projections() does a worker's work, es_start_worker() says what is
# lacking and so does the log, once; as soon as there is a process again the
# worker comes.  A database whose worker is at work can be copied, renamed and
# dropped, over and over; no process is lost, and no worker loops.
#
# ES_ROUNDS says how often a database is made, copied and dropped (1).
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EsTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $rounds = $ENV{ES_ROUNDS} || 1;
my %found = (faults => 0, lost => 0, doubled => 0, reordered => 0);

# One process for the launcher, one for a worker.
my $node = new_store('main', <<'CONF');
max_worker_processes = 2
max_logical_replication_workers = 0
shared_preload_libraries = 'eventstore'
CONF

sub sql
{
	my ($dbname, $query) = @_;

	return $node->safe_psql($dbname, $query);
}

sub workers
{
	return sql('template1', "SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_stat_activity
		WHERE backend_type = 'eventstore worker' AND datname <> 'template1'");
}

sub wait_for_worker
{
	my ($dbname) = @_;
	my $began = time;

	wait_until("the worker of $dbname", sub { workers() =~ /\b$dbname\b/ });
	return time - $began;
}

sub make_store
{
	my ($dbname) = @_;

	sql('template1', "CREATE DATABASE $dbname");
	sql($dbname, <<'SQL');
CREATE EXTENSION eventstore;
CREATE TABLE seen (n int GENERATED ALWAYS AS IDENTITY, "position" bigint);
BEGIN;
SELECT es_create_projection('seen', tables => '{seen}');
SELECT es_on('seen', 'A', $$INSERT INTO seen (position) VALUES (event.position)$$);
COMMIT;
SQL
}

# So many events, whoever runs the projection; what it lacks, has twice, has
# in the wrong order goes to the figures.
sub append_and_compare
{
	my ($dbname, $n, $by_hand) = @_;

	sql($dbname, "SELECT es_append('s-' || n % 5, 'A', '{}') FROM generate_series(1, $n) n");
	sql($dbname, 'CALL es_run_projections()') if $by_hand;
	is( sql($dbname, q(SELECT es_wait_for('seen', (SELECT max(position) FROM es_event), '20 s'))),
		't', "$dbname: the read model catches up");
	my ($lost, $doubled, $reordered) = split /\|/, sql($dbname, q(
		SELECT (SELECT count(*) FROM es_event e WHERE NOT EXISTS (SELECT FROM seen s WHERE s.position = e.position)),
			(SELECT count(*) - count(DISTINCT position) FROM seen),
			(SELECT count(*) FROM (SELECT position < lag(position) OVER (ORDER BY n) AS back FROM seen) x WHERE back)));
	is("$lost $doubled $reordered", '0 0 0', "$dbname: each event once, in order");
	$found{lost} += $lost;
	$found{doubled} += $doubled;
	$found{reordered} += $reordered;
}

# The only process is taken by one database, and another wants one.
make_store('first');
sql('first', 'SELECT es_start_worker()') if workers() !~ /first/;
wait_for_worker('first');
my $offset = -s $node->logfile;
make_store('second');
sqlstate_is($node, 'SELECT es_start_worker()', '55000', 'without a process es_start_worker() says so', dbname => 'second');
wait_until('the launcher to notice', sub { slurp_file($node->logfile, $offset) =~ /no background worker slot for database/ });
pass('and so does the log');
append_and_compare('second', 20, 1);
append_and_compare('first', 20);
is(() = slurp_file($node->logfile, $offset) =~ /no background worker slot for database/g, 1, 'once');
my ($reports) = scalar(() = slurp_file($node->logfile, $offset) =~ /^.*(?:WARNING|FATAL|PANIC):/mg);
is($reports, 0, 'and nothing worse');
$found{faults}++;
sql('template1', 'DROP DATABASE first');
my $back = wait_for_worker('second');
note sprintf 'the worker came %.1f s after a process was free', $back;
append_and_compare('second', 20);
sql('template1', 'DROP DATABASE second');

# Databases that come and go under their workers.
$node->append_conf('postgresql.conf', 'max_worker_processes = 6');
$node->restart;
my %longest = (copied => 0, renamed => 0, dropped => 0);

sub timed
{
	my ($what, $query) = @_;
	my $began = time;

	sql('template1', $query);
	$longest{$what} = time - $began if time - $began > $longest{$what};
	$found{faults}++;
}

$offset = -s $node->logfile;
foreach my $round (1 .. $rounds)
{
	make_store('original');
	sql('original', 'SELECT es_start_worker()');
	append_and_compare('original', 30);
	sql('original', 'SELECT epoch FROM es_store()');    # from here on it keeps epochs
	timed('copied', 'CREATE DATABASE copy TEMPLATE original');
	sql('copy', 'SELECT es_start_worker()');
	append_and_compare('copy', 30);
	isnt(sql('copy', 'SELECT epoch FROM es_store()'), sql('original', 'SELECT epoch FROM es_store()'),
		'a copy is in another epoch');
	timed('renamed', 'ALTER DATABASE copy RENAME TO renamed');
	append_and_compare('renamed', 10);
	store_is_sound($node, "round $round", dbname => 'renamed');
	timed('dropped', "DROP DATABASE $_") foreach 'original', 'renamed';
}
note join ', ', map { sprintf "%s within %.1f s", $_, $longest{$_} } sort keys %longest;
my @lines = grep { /(?:WARNING|ERROR|FATAL|PANIC|LOG):/ && !/LOG:  (?:statement|checkpoint|connection|disconnection)/ }
  split /\n/, slurp_file($node->logfile, $offset);
cmp_ok(@lines, '<=', 3 * $rounds, 'at most three lines a round in the log (' . @lines . ')') or diag join "\n", @lines;

# All processes are to be had again: five databases get a worker each at once.
make_store("d$_") foreach 1 .. 4;
sql("d$_", 'SELECT es_start_worker()') foreach 1 .. 4;
wait_until('a worker for each', sub { workers() =~ /d1 d2 d3 d4/ });
pass('no process is lost');
report_figures(%found);

$node->stop;
done_testing();
