# es_check() with amcheck, in little time, and near wraparound.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EsTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_store('main', "autovacuum_freeze_max_age = 100000\n");
my $ill = q(SELECT check_name, status FROM es_check() WHERE status <> 'ok');

$node->safe_psql('postgres', q(
	SELECT es_append('s-' || n % 100, 'A', '{}', tags => ARRAY['t:' || n % 7]) FROM generate_series(1, 20000) n;));

# The deadline: reading all of this takes longer than a millisecond.
is($node->safe_psql('postgres', q(SELECT count(*) > 0, bool_and(detail LIKE 'not finished: nothing wrong in %'), min(hint)
	FROM es_check('1 ms') WHERE status <> 'ok' AND check_name <> 'index structure')), 't|t|Give es_check() more time.',
	'what has no time to end says so');
is($node->safe_psql('postgres', $ill), '', 'with time enough nothing is wrong');

SKIP:
{
	skip 'amcheck is not installed (contrib)', 8
	  if $node->safe_psql('postgres', q(SELECT count(*) FROM pg_available_extensions WHERE name = 'amcheck')) eq '0';

	$node->safe_psql('postgres', 'CREATE SCHEMA "odd schema"; CREATE EXTENSION amcheck SCHEMA "odd schema"');
	like($node->safe_psql('postgres', q(SELECT status, detail FROM es_check() WHERE check_name = 'index structure')),
		qr/^ok\|[1-9][0-9]+ indexes, by amcheck$/, 'amcheck looks at all indexes');

	# Swap two entries' places on a leaf page of an index nobody walks in order here.
	my $path = $node->data_dir . '/' . $node->safe_psql('postgres', q(SELECT pg_relation_filepath('es_event_tag_pkey')));
	$node->stop;
	open my $file, '+<:raw', $path or die "$path: $!";
	my ($first, $second);
	seek $file, 8192 + 24 + 4 * 5, 0;
	read $file, $first, 4;
	read $file, $second, 4;
	seek $file, 8192 + 24 + 4 * 5, 0;
	print $file $second . $first;
	close $file;
	$node->start;
	is($node->safe_psql('postgres', q(SELECT check_name, status, hint FROM es_check() WHERE status <> 'ok')),
		'index structure|error|REINDEX INDEX it, and look for what damaged it.', 'an index out of order is found by amcheck alone');
	like($node->safe_psql('postgres', q(SELECT detail FROM es_check() WHERE check_name = 'index structure')),
		qr/^"es_event_tag_pkey": item order invariant violated/, 'and named, with what amcheck says');
	$node->safe_psql('postgres', 'REINDEX TABLE es_event_tag');
	is($node->safe_psql('postgres', $ill), '', 'REINDEX is the cure');

	# An amcheck that takes for ever.
	$node->safe_psql('postgres', q(CREATE OR REPLACE FUNCTION "odd schema".bt_index_check(index regclass) RETURNS void
		LANGUAGE plpgsql AS 'BEGIN PERFORM pg_catalog.pg_sleep(3600); END'));
	is($node->safe_psql('postgres', q(SELECT status, detail FROM es_check('1500 ms') WHERE check_name = 'index structure')),
		'warning|not finished: nothing wrong in 0 indexes', 'the deadline cancels amcheck');
	is($node->safe_psql('postgres', q(SET statement_timeout = '60 s';
		SELECT count(*) FROM es_check('1 s') WHERE status = 'error'; SELECT pg_sleep(0.1); SELECT 'alive')), "0\n\nalive",
		'and nothing after it');
	sqlstate_is($node, q(SET statement_timeout = '1 s'; SELECT * FROM es_check()), '57014', 'a user\'s cancellation is one');
	sqlstate_is($node, q(SET statement_timeout = '1 s'; SELECT * FROM es_check('1 hour')), '57014', 'with a deadline, too');
	$node->safe_psql('postgres', 'DROP EXTENSION amcheck');
}

# Burn transaction ids.
$node->safe_psql('postgres', q(
	CREATE TABLE burnt (n int);
	DO $$ BEGIN
		FOR n IN 1..105000 LOOP
			BEGIN INSERT INTO burnt VALUES (n); EXCEPTION WHEN division_by_zero THEN NULL; END;
		END LOOP;
	END $$;));
like($node->safe_psql('postgres', q(SELECT check_name, status, detail FROM es_check() WHERE status <> 'ok')),
	qr/^wraparound\|warning\|"(?:public\.es_|pg_toast\.)\w+" is 1\d{5} transactions old; autovacuum_freeze_max_age is 100000$/, 'tables near wraparound are named');
$node->safe_psql('postgres', 'VACUUM (FREEZE)');
is($node->safe_psql('postgres', $ill), '', 'VACUUM (FREEZE) is the cure');

$node->stop;
done_testing();
