# An updated database holds exactly what a fresh one holds, and its store is
# what it was.  Until ALTER EXTENSION UPDATE, the library of the new version
# serves the SQL of the one before.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EsTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_store('main', "max_prepared_transactions = 2\n");

# Every object of the extension, each fact about it on a line, without OIDs and
# without anything that the order of statements decides, save the order of
# columns: the library goes by it.
my $catalog = q(
	WITH extension AS (SELECT * FROM pg_extension WHERE extname = 'eventstore'),
	object AS (
		SELECT d.classid, d.objid, d.objsubid, i.type || ' ' || i.identity AS name
			FROM pg_depend d JOIN extension e ON d.refobjid = e.oid
				AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e',
				pg_identify_object(d.classid, d.objid, d.objsubid) i),
	relation AS (SELECT o.name, c.* FROM object o JOIN pg_class c ON o.classid = 'pg_class'::regclass AND o.objid = c.oid),
	fact(name, fact) AS (
		SELECT name, 'comment ' || coalesce(obj_description(objid, classid::regclass::name), '-') FROM object
		UNION ALL SELECT name, pg_get_functiondef(p.oid) FROM object JOIN pg_proc p ON classid = 'pg_proc'::regclass AND p.oid = objid AND p.prokind <> 'a'
		UNION ALL SELECT name, format('owner %s', proowner::regrole) FROM object JOIN pg_proc p ON classid = 'pg_proc'::regclass AND p.oid = objid
		UNION ALL SELECT name, format('privilege %s %s %s by %s', privilege_type, grantee::regrole, is_grantable, grantor::regrole)
			FROM object JOIN pg_proc p ON classid = 'pg_proc'::regclass AND p.oid = objid, aclexplode(coalesce(proacl, acldefault('f', proowner)))
		UNION ALL SELECT name, format('privilege %s %s %s by %s', privilege_type, grantee::regrole, is_grantable, grantor::regrole)
			FROM relation, aclexplode(coalesce(relacl, acldefault(CASE relkind WHEN 'S' THEN 'S' ELSE 'r' END::"char", relowner)))
		UNION ALL SELECT o.name, format('at first %s %s %s', a.privilege_type, a.grantee::regrole, a.is_grantable)
			FROM object o JOIN pg_init_privs i ON i.classoid = o.classid AND i.objoid = o.objid, aclexplode(i.initprivs) a
		UNION ALL SELECT name, format('%s %s %s %s %s %s %s %s %s', relkind, relpersistence, relreplident, relrowsecurity, relforcerowsecurity,
			relowner::regrole, reloptions, (SELECT amname FROM pg_am WHERE oid = relam), reltype::regtype) FROM relation
		UNION ALL SELECT name, format('column %s %s %s %s null %s default %s identity %s generated %s storage %s compression %s target %s acl %s options %s comment %s',
				row_number() OVER (PARTITION BY a.attrelid ORDER BY attnum), attname, format_type(atttypid, atttypmod), attcollation::regcollation,
				attnotnull, pg_get_expr(adbin, adrelid), attidentity, attgenerated, attstorage, attcompression,
				nullif(attstattarget, -1), attacl,
				-- a server of its own may mark columns of views
				array(SELECT o FROM unnest(attoptions) o WHERE o !~ '^pg_' ORDER BY 1), col_description(a.attrelid, attnum))
			FROM relation r JOIN pg_attribute a ON a.attrelid = r.oid AND attnum > 0 AND NOT attisdropped LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
		UNION ALL SELECT name, format('%s %s %s %s', pg_get_indexdef(indexrelid), indisvalid, indisreplident, i.reloptions) FROM relation r
			JOIN pg_index ON indrelid = r.oid JOIN pg_class i ON i.oid = indexrelid
		UNION ALL SELECT name, format('constraint %s %s %s %s', conname, pg_get_constraintdef(c.oid), convalidated, obj_description(c.oid, 'pg_constraint'))
			FROM relation r JOIN pg_constraint c ON conrelid = r.oid
		UNION ALL SELECT name, format('%s %s %s', pg_get_triggerdef(t.oid), tgenabled, obj_description(t.oid, 'pg_trigger')) FROM relation r
			JOIN pg_trigger t ON tgrelid = r.oid AND NOT tgisinternal
		UNION ALL SELECT name, format('%s %s %s', pg_get_ruledef(w.oid), ev_enabled, obj_description(w.oid, 'pg_rewrite')) FROM relation r JOIN pg_rewrite w ON ev_class = r.oid
		UNION ALL SELECT name, format('policy %s %s %s %s %s', polname, polcmd, polroles::regrole[], pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid))
			FROM relation r JOIN pg_policy ON polrelid = r.oid
		UNION ALL SELECT name, (to_jsonb(s) - 'seqrelid')::text FROM relation r JOIN pg_sequence s ON seqrelid = r.oid
		UNION ALL SELECT name, format('%s dumped where %s', r.relname, extcondition[array_position(extconfig, r.oid)]) FROM relation r, extension WHERE r.oid = ANY (extconfig)
		UNION ALL SELECT name, format('type %s %s %s', typtype, typowner::regrole, typacl) FROM object JOIN pg_type t ON classid = 'pg_type'::regclass AND t.oid = objid
		UNION ALL SELECT 'extension', format('%s %s %s', extversion, extrelocatable, extnamespace::regnamespace) FROM extension)
	SELECT name || ': ' || fact FROM fact ORDER BY (name || ': ' || fact) COLLATE "C");

# Something of everything, by the functions of 0.1.
my $content = q(
	CREATE ROLE regress_es_reader;
	CREATE ROLE regress_es_subscriber;
	CREATE ROLE regress_es_admin;
	SELECT es_grant('regress_es_reader', 'reader'), es_grant('regress_es_subscriber', 'subscriber'), es_grant('regress_es_admin', 'admin');
	SELECT es_create_event_type('Checked', check_expression => $$(event.data ->> 'n')::int > 0$$, tags => ARRAY['n:{n}']);
	SELECT es_create_event_type('Grown', 2);
	SELECT es_upcast('Grown', 1, $$event.data || '{"grown": true}'$$);
	CREATE TABLE total (stream_id text PRIMARY KEY, n bigint);
	CREATE TABLE seen (position bigint PRIMARY KEY);
	CREATE TABLE item (id int PRIMARY KEY, name text);
	SELECT es_create_projection('total', 'inline', '{total}');
	SELECT es_on('total', 'A', 'INSERT INTO total VALUES (event.stream_id, 1) ON CONFLICT (stream_id) DO UPDATE SET n = total.n + 1');
	SELECT es_create_projection('seen', tables => '{seen}');
	SELECT es_on_batch('seen', 'INSERT INTO seen SELECT position FROM new_events');
	SELECT es_create_aggregate('s', 's', initial_state => '0', state_type => 'bigint', snapshot_every => 5);
	SELECT es_evolve('s', 'A', 'state + 1');
	SELECT es_decide('s', 'Go', $$SELECT 'A', '{"gone": true}'::jsonb$$, $$CASE WHEN state > 1000 THEN 'enough' END$$);
	SELECT es_create_subscription('before', partitions => 2);
	SELECT es_track_table('item');
	INSERT INTO item SELECT i, 'item ' || i FROM generate_series(1, 10) i;
	SELECT count(es_append('s-' || i % 7, (ARRAY['A', 'Checked', 'Grown'])[1 + i % 3], jsonb_build_object('n', i), tags => ARRAY['t:' || i % 5]))
		FROM generate_series(1, 300) i;
	SELECT es_handle('s-1', 'Go', command_id => '00000000-0000-4000-8000-000000000001');
	SELECT es_truncate_stream('s-3', 4), es_delete_stream('s-4'), es_tombstone_stream('s-5');
	CALL es_archive(before_position => 100, segment_events => 40);
	CALL es_run_projections();
	SELECT es_take_snapshots(), es_settle(););

# What readers of every kind are shown.
my $shown = q(
	SELECT md5(string_agg(e::text, E'\n' ORDER BY position)) FROM es_read_all(max_count => NULL) e;
	SELECT md5(string_agg(e::text, E'\n' ORDER BY position)) FROM es_read('{"items": [{"tags": ["t:1"]}]}') e;
	SELECT version, state FROM es_state('s-1');
	SELECT * FROM total ORDER BY 1;
	SELECT count(*), max(position) FROM seen;
	SELECT name, position, epoch IS NULL FROM es_stat_subscription, es_store() ORDER BY 1;
	SELECT * FROM es_stat_archive;
	SELECT name, status, position FROM es_stat_projection ORDER BY 1;);

# Everything goes on: each call leaves something new behind.
sub goes_on
{
	my ($name) = @_;
	my $before = $node->safe_psql('old', 'SELECT max(position) FROM es_event');

	$node->safe_psql('old', qq(
		SELECT es_append('s-1', 'A', '{"n": 1}');
		SELECT es_append_batch('s-2', '{A,Checked}', '{"{}","{\\"n\\": 2}"}');
		SELECT es_append_if('[{"stream": "s-6", "type": "A", "data": {}}]', '{"items": [{"tags": ["none"]}]}');
		SELECT es_handle('s-1', 'Go');
		INSERT INTO es_event (stream_id, event_type, data) VALUES ('s-2', 'Grown', '{}');
		UPDATE item SET name = name || '!' WHERE id = 1;
		CALL es_run_projections();
		SELECT es_settle(), es_take_snapshots();
		CALL es_archive(before_position => (SELECT 0 + $before), segment_events => 40)) =~ s/\(SELECT 0 \+ (\d+)\)/$1/r);
	is( $node->safe_psql('old', "SELECT string_agg(event_type, ' ' ORDER BY position) FROM es_read_all($before)"),
		'A A Checked A A Grown item.updated', "$name: appends go on");
	is($node->safe_psql('old', "SELECT count(*) FROM seen WHERE position > $before"), '7', "$name: projections do");
	my ($token, $count) = split /\|/, $node->safe_psql('old',
		q(SELECT min(token), count(*) FROM es_fetch('before', 'c', 20)));
	is($count, '20', "$name: subscriptions do");
	$node->safe_psql('old', "SELECT es_ack('before', '$token')");
	is($node->safe_psql('old', q(SELECT es_handle('s-1', 'Go', command_id => '00000000-0000-4000-8000-000000000001')
		< (SELECT es_stream_version('s-1')))), 't', "$name: a command that was handled is not handled again");
	store_is_sound($node, $name, dbname => 'old');
}

# In a schema that is not the default, owned by a role of its own.
$node->safe_psql('postgres', "CREATE DATABASE $_") foreach 'old', 'fresh';
$node->safe_psql('old', q(CREATE EXTENSION eventstore VERSION '0.1'));
$node->safe_psql('fresh', q(CREATE EXTENSION eventstore));
is( $node->safe_psql('fresh', q(SELECT extversion = default_version FROM pg_extension
		JOIN pg_available_extensions ON name = extname WHERE extname = 'eventstore')),
	't', 'a fresh extension has the version of the library');
$node->safe_psql('old', $content);

# The new library, the SQL of 0.1.
goes_on('not yet updated');

my $before = $node->safe_psql('old', $shown);
my $store = store_hash($node, 'old');
my $granted = q(
	SELECT p.proname, a.grantee::regrole, a.is_grantable FROM pg_proc p, aclexplode(proacl) a
		WHERE proname LIKE 'es\_%' AND grantee::regrole::text LIKE 'regress%' ORDER BY 1, 2);
my $grants = $node->safe_psql('old', $granted);

# A session from before goes on, too: its plans and its caches are told.
my $session = $node->background_psql('old');
$session->query_safe(q(
	PREPARE append AS SELECT es_append('s-1', 'A', '{}');
	PREPARE get AS SELECT count(*) FROM es_fetch('before', 'c', 1);
	EXECUTE append; EXECUTE get;));
$store = store_hash($node, 'old');
$before = $node->safe_psql('old', $shown);
$node->safe_psql('old', 'ALTER EXTENSION eventstore UPDATE');
is(store_hash($node, 'old'), $store, 'the store is the same after the update');
is($node->safe_psql('old', $shown), $before, 'and shows the same');
is($node->safe_psql('old', $granted), $grants, 'whoever could call a function can');
$session->query_safe('EXECUTE append; EXECUTE get;');
$session->quit;

# Compared without what was granted, which a fresh extension has not.
$node->safe_psql('old', 'DROP OWNED BY regress_es_reader, regress_es_subscriber, regress_es_admin');
my %facts = map { $_ => $node->safe_psql($_, $catalog) } 'old', 'fresh';
my @lines = map { [ split /\n/, $facts{$_} ] } 'old', 'fresh';
cmp_ok(scalar @{ $lines[1] }, '>', 1000, 'the catalogs say something');
foreach my $of (0, 1)
{
	my %other = map { $_ => 1 } @{ $lines[ 1 - $of ] };
	is(join("\n", grep { !$other{$_} } @{ $lines[$of] }),
		'', 'nothing is in the ' . ('updated', 'fresh')[$of] . ' catalog alone');
}
is($facts{old}, $facts{fresh}, 'an updated catalog is the same as a fresh one');

goes_on('updated');

# What an updated store dumps is what it is.
my $dump = $node->basedir . '/dump';
$node->safe_psql('postgres', 'CREATE DATABASE restored');
$node->command_ok([ 'pg_dump', '-Fc', '-f', $dump, 'old' ], 'the updated store is dumped');
$node->command_ok([ 'pg_restore', '-e', '-d', 'restored', $dump ], 'and restored');
is(store_hash($node, 'restored'), store_hash($node, 'old'), 'the same store');
is($node->safe_psql('restored', $catalog), $facts{fresh}, 'with the same catalog');

# In a schema of its own, and back from a failure.
$node->safe_psql('postgres', 'CREATE DATABASE placed');
$node->safe_psql('placed', q(
	CREATE SCHEMA "The Store";
	CREATE EXTENSION eventstore SCHEMA "The Store" VERSION '0.1';
	BEGIN;
	ALTER EXTENSION eventstore UPDATE;
	ROLLBACK;
	SELECT "The Store".es_append('s-1', 'A', '{}');
	ALTER EXTENSION eventstore UPDATE;
	SELECT "The Store".es_append('s-1', 'A', '{}');
	ALTER EXTENSION eventstore SET SCHEMA public;));
is($node->safe_psql('placed', $catalog), $facts{fresh}, 'in another schema and moved: the same catalog');

$node->stop;
done_testing();
