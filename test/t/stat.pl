# What the views tell of other sessions: who holds readers back, what is
# counted, on a standby, and after a restart.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EsTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_store('main', "max_prepared_transactions = 5\nmax_wal_senders = 3\nwal_level = replica\n", allows_streaming => 1);
my $holder = q(SELECT holder_pid, holder_gid, holder_position, holder_age_seconds > 0, settled_position, last_position,
	settled_age_seconds > 0 FROM es_stat_store);

$node->safe_psql('postgres', q(SELECT es_append('s-1', 'A', '{}')));
is($node->safe_psql('postgres', $holder), '||||1|1|f', 'nobody holds readers back');

# A transaction that has appended.
my $session = $node->background_psql('postgres');
my $pid = $session->query_safe('SELECT pg_backend_pid()');
$session->query_safe(q(BEGIN));
$session->query_safe(q(SELECT es_append('s-2', 'A', '{}')));
is($node->safe_psql('postgres', $holder), "$pid||1|t|1|2|f", 'the session is named, with its position and age');
$node->safe_psql('postgres', q(SELECT es_append('s-3', 'A', '{}')));
is($node->safe_psql('postgres', $holder), "$pid||1|t|1|3|t", 'and an event that waits for it makes the position old');
is($session->query_safe('SELECT holder_pid IS NULL, settled_position FROM es_stat_store'), 't|3',
	'a session does not hold itself back');
is($node->safe_psql('postgres', q(SELECT detail ~ '^held at 1 by process [0-9]+ for [0-9]+ s; last drawn 3$' FROM es_check()
	WHERE check_name = 'settled position')), 't', 'es_check() names it');

# The older of two is the one; a prepared one has no pid, and a name.
my $younger = $node->background_psql('postgres');
$younger->query_safe(q(BEGIN));
$younger->query_safe(q(SELECT es_append('s-4', 'A', '{}')));
is($node->safe_psql('postgres', 'SELECT holder_pid FROM es_stat_store'), $pid, 'the older one is named');
$session->query_safe(q(PREPARE TRANSACTION 'forgotten'));
is($node->safe_psql('postgres', $holder), '|forgotten|1|t|1|4|t', 'a prepared transaction is named by its gid');
is($node->safe_psql('postgres', q(SELECT detail ~ 'prepared transaction forgotten', status FROM es_check()
	WHERE check_name = 'settled position')), 't|ok', 'by es_check(), too');
$younger->query_safe('ROLLBACK');
$node->stop('immediate');
$node->start;
like($node->safe_psql('postgres', $holder), qr/^\|forgotten\|1\|t\|1\|\d+\|t$/, 'the same after a crash');
$node->safe_psql('postgres', q(COMMIT PREPARED 'forgotten'));
like($node->safe_psql('postgres', $holder), qr/^\|\|\|\|(\d+)\|\1\|f$/, 'and nobody when it is committed');
$_->quit foreach $session, $younger;

# The crash took the counters.  What several sessions do comes together.
is($node->safe_psql('postgres', 'SELECT appended, conflicts FROM es_stat_store'), '0|0', 'the counters begin anew after a crash');
$session = $node->background_psql('postgres');
$session->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ');
$session->query_safe('SELECT count(*) FROM es_event');
$node->safe_psql('postgres', q(SELECT es_append('s-1', 'A', '{}')));
$session->query_safe(q(DO $$ BEGIN PERFORM es_append('s-1', 'A', '{}'); EXCEPTION WHEN serialization_failure THEN NULL; END $$));
$session->query_safe('ROLLBACK');
$session->quit;
$node->psql('postgres', q(SELECT es_append('s-1', 'A', '{}', 99)));
wait_until('the counters', sub {
	$node->safe_psql('postgres', 'SELECT appended, conflicts FROM es_stat_store') eq '1|2';
});
pass('appends and conflicts of all sessions are counted, also that of an old snapshot');
$node->restart;
is($node->safe_psql('postgres', 'SELECT appended, conflicts FROM es_stat_store'), '1|2', 'a restart keeps the counters');
$node->safe_psql('postgres', 'SELECT es_stat_reset()');
is($node->safe_psql('postgres', 'SELECT appended, conflicts FROM es_stat_store'), '0|0', 'es_stat_reset() does not');

is($node->safe_psql('postgres', 'SELECT count(*) FROM es_progress'), '0', 'nothing is under way');

# A batch of a projection, seen from outside.
$node->safe_psql('postgres', q(
	CREATE TABLE gate ();
	SELECT es_create_projection('slow', on_error => 'stop');
	SELECT es_on('slow', 'A', 'LOCK TABLE gate IN ROW SHARE MODE');));
my $blocker = $node->background_psql('postgres');
$blocker->query_safe('BEGIN');
$blocker->query_safe('LOCK TABLE gate IN ACCESS EXCLUSIVE MODE');
my $run = psql_start($node, 'CALL es_run_projections();');
wait_until('the batch', sub { $node->safe_psql('postgres', 'SELECT count(*) FROM es_progress') eq '1' });
is($node->safe_psql('postgres', q(SELECT job, phase, done, total = last_position, pid IN (SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock')
	FROM es_progress, es_stat_store)), 'run slow|projecting|0|t|t', 'es_progress shows a batch under way');
$node->safe_psql('postgres', q(SELECT pg_cancel_backend(pid) FROM es_progress));
psql_finish($run);
is($node->safe_psql('postgres', 'SELECT count(*) FROM es_progress'), '0', 'and not when it was cancelled');

# es_check() shows where it is.
$blocker->query_safe('ROLLBACK');
$blocker->query_safe('BEGIN');
$blocker->query_safe('LOCK TABLE es_retagged IN ACCESS EXCLUSIVE MODE');
$run = psql_start($node, 'SELECT es_check();');
wait_until('the check', sub { $node->safe_psql('postgres', 'SELECT phase FROM es_progress') eq 'tags' });
is($node->safe_psql('postgres', 'SELECT job, total > 0 FROM es_progress'), 'check|t', 'es_progress shows es_check()');
$blocker->query_safe('ROLLBACK');
ok((psql_finish($run))[0], 'which ends');
$blocker->quit;
is($node->safe_psql('postgres', 'SELECT count(*) FROM es_progress'), '0', 'and is gone');

# On a standby.
$node->safe_psql('postgres', q(SELECT es_append('s-9', 'A', '{}')));
$node->safe_psql('postgres', 'SELECT es_settle()');
$node->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'backup', has_streaming => 1);
$standby->start;
$node->wait_for_catchup($standby);
is($standby->safe_psql('postgres', 'SELECT s.events, s.streams, s.settled_position, holder_pid IS NULL FROM es_stat_store s'),
	$node->safe_psql('postgres', 'SELECT count(*), count(DISTINCT stream_id), es_settled_position(), true FROM es_event'),
	'a standby counts the same events and goes by what was written down');
is($standby->safe_psql('postgres', 'SELECT sum(events) FROM es_stat_stream'),
	$node->safe_psql('postgres', 'SELECT count(*) FROM es_event'), 'es_stat_stream on a standby');
is($standby->safe_psql('postgres', q(SELECT string_agg(check_name || ' ' || status, ', ') FROM es_check() WHERE status <> 'ok')), '',
	'es_check() on a standby');

like($standby->safe_psql('postgres', 'SELECT es_report()'), qr/<title>postgres &middot; eventstore.*<\/html>/s, 'es_report() on a standby');
like($standby->safe_psql('postgres', q(SELECT es_report('s-9'))), qr/id="v1".*<\/html>/s, 'and of a stream');

$standby->stop;
$node->stop;
done_testing();
