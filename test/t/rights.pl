# In whose name a worker works: the owner of each projection, in the handler and
# in whatever its target table brings along; and what becomes of a projection
# whose owner loses the right, or is gone.  The worker itself is a superuser's.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EsTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_store('main');

$node->safe_psql('postgres', <<'SQL');
CREATE ROLE es_definer NOLOGIN;
CREATE ROLE es_other;
CREATE ROLE es_writer;
SELECT es_grant('es_definer', 'admin'), es_grant('es_other', 'admin'), es_grant('es_writer', 'writer');
CREATE TABLE secret (n int);
CREATE SCHEMA definer AUTHORIZATION es_definer;
CREATE SCHEMA other AUTHORIZATION es_other;
CREATE TABLE public.caught (how text, who name, session name, path text, escaped text);
GRANT INSERT ON caught TO es_definer;
SQL

# Everything that a table can bring along tells in whose name it runs.
$node->safe_psql('postgres', <<'SQL');
SET ROLE es_definer;
SET search_path = definer, public;
CREATE FUNCTION tell(how text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
	attempt text;
	done text := '';
BEGIN
	FOREACH attempt IN ARRAY ARRAY['RESET ROLE', 'SET SESSION AUTHORIZATION DEFAULT', 'SET ROLE es_other',
		'CREATE ROLE es_evil SUPERUSER', 'INSERT INTO public.secret VALUES (1)'] LOOP
		BEGIN
			EXECUTE attempt;
			done := done || ' ' || attempt;
		EXCEPTION WHEN OTHERS THEN NULL;
		END;
	END LOOP;
	INSERT INTO public.caught VALUES (how, current_user, session_user, current_setting('search_path'), done);
	RETURN true;
END $$;
CREATE FUNCTION tell_of(how text, what bigint) RETURNS bigint LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN PERFORM definer.tell(how); RETURN what; END $$;
CREATE FUNCTION by_trigger() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM definer.tell('trigger'); RETURN NEW; END $$;
CREATE TABLE bait (id bigint PRIMARY KEY, told boolean DEFAULT definer.tell('default'), other bigint CHECK (definer.tell('check')),
	made bigint GENERATED ALWAYS AS (definer.tell_of('generated', id)) STORED);
CREATE INDEX ON bait (definer.tell_of('index', id));
CREATE TRIGGER bait BEFORE INSERT ON bait FOR EACH ROW EXECUTE FUNCTION by_trigger();
CREATE RULE bait AS ON INSERT TO bait DO ALSO SELECT definer.tell('rule');
ALTER TABLE bait ENABLE ROW LEVEL SECURITY;
ALTER TABLE bait FORCE ROW LEVEL SECURITY;
CREATE POLICY bait ON bait WITH CHECK (definer.tell('policy'));
SELECT es_create_projection('bait', tables => '{bait}');
SELECT es_on('bait', 'Made', $$ SELECT tell('handler'); INSERT INTO bait (id, other) VALUES (event.position, 1) $$);
SET ROLE es_other;
SET search_path = other, public;
CREATE TABLE good (id bigint PRIMARY KEY);
SELECT es_create_projection('good', tables => '{good}');
SELECT es_on('good', 'Made', 'INSERT INTO good VALUES (event.position)');
SQL

sub append
{
	$node->safe_psql('postgres', q(SET ROLE es_writer; SELECT es_append('a-1', 'Made', '{}')));
}

# Both projections have come to a rest; answers "status error" of one.
sub state_of
{
	my ($name) = @_;

	wait_until('the projections to be through', sub {
		$node->safe_psql('postgres', q(SELECT count(*) FROM es_stat_projection WHERE status = 'live'
			AND position < (SELECT max(position) FROM es_event))) eq '0';
	});
	return $node->safe_psql('postgres',
		"SELECT status, coalesce(last_error, '') FROM es_stat_projection WHERE name = '$name'");
}

$node->safe_psql('postgres', 'SELECT es_start_worker()');
append();
is(state_of('bait'), 'live|', 'the worker has run the handler');
is($node->safe_psql('postgres', q(SELECT string_agg(DISTINCT how, ' ' ORDER BY how) FROM caught)),
	'check default generated handler index policy rule trigger', 'all that was there has run');
is($node->safe_psql('postgres', 'SELECT DISTINCT who, path, escaped FROM caught'),
	'es_definer|definer, public, pg_temp|', "in the owner's name, under its path, and nothing led out of it");
is($node->safe_psql('postgres', 'SELECT count(*) FROM secret'), '0', 'what the owner may not, was not done');
is($node->safe_psql('postgres', q(SELECT count(*) FROM pg_roles WHERE rolname = 'es_evil')), '0', 'nor was a role made');

# The owner loses the right to read events: that projection stops.
$node->safe_psql('postgres', 'REVOKE SELECT ON es_event FROM es_definer CASCADE');
append();
like(state_of('bait'), qr/^stopped\|.*permission denied for table es_event/s, 'an owner who may not read events any more: stopped');
is($node->safe_psql('postgres', 'SELECT count(*) FROM definer.bait'), '1', 'and nothing was done in another name');
is(state_of('good'), 'live|', 'the others run on');

# It loses the right to its table.
$node->safe_psql('postgres', <<'SQL');
GRANT SELECT ON es_event TO es_definer;
ALTER TABLE definer.bait OWNER TO es_other;
SELECT es_resume_projection('bait');
SQL
like(state_of('bait'), qr/^stopped\|.*permission denied for table bait/s, 'an owner who may not write its table any more: stopped');
is($node->safe_psql('postgres', 'SELECT count(*) FROM definer.bait'), '1', 'and nothing was written');

# It is gone.
$node->safe_psql('postgres', <<'SQL');
DROP OWNED BY es_definer CASCADE;
DROP ROLE es_definer;
SELECT es_resume_projection('bait');
SQL
append();
like(state_of('bait'), qr/^stopped\|.*role .* does not exist/s, 'an owner that is gone: stopped');
is(state_of('good'), 'live|', 'the others run on');
is($node->safe_psql('postgres', 'SELECT count(*) FROM other.good'), '3', 'and have met every event');

# Checks of types and deciders: the definer's rights, not the appender's.
$node->safe_psql('postgres', <<'SQL');
CREATE TABLE other.allowed (by name);
ALTER TABLE other.allowed OWNER TO es_other;
SET ROLE es_other;
SET search_path = other, public;
CREATE FUNCTION note() RETURNS boolean LANGUAGE plpgsql STABLE AS $$ BEGIN RAISE LOG 'note: %', current_user; RETURN current_user = 'es_other' AND (SELECT count(*) >= 0 FROM other.allowed); END $$;
REVOKE ALL ON FUNCTION note() FROM PUBLIC;
SELECT es_create_event_type('Checked', check_expression => 'note()');
SELECT es_create_aggregate('d', initial_state => '0');
SELECT es_decide('d', 'Do', $$ SELECT 'Done', to_jsonb(current_user::text) FROM (SELECT count(*) FROM allowed) AS a $$, $$ CASE WHEN NOT note() THEN 'no' END $$);
SQL
is($node->safe_psql('postgres', q(SET ROLE es_writer; SELECT es_append('c-1', 'Checked', '{}'))), '1', 'a check of a type reads what its definer may read');
is($node->safe_psql('postgres', q(SET ROLE es_writer; SELECT es_handle('d-1', 'Do'); SELECT data FROM es_event WHERE stream_id = 'd-1')),
	qq(1\n"es_other"), 'a decider decides as its definer');
sqlstate_is($node, q(SET ROLE es_writer; SELECT other.note()), '42501', 'the one who appends may not');

done_testing();
