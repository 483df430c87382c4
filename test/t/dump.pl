# A dump restored elsewhere is the same store, and goes on appending.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EsTest;
use Test::More;

my $node = new_store('main', "max_prepared_transactions = 2\n");
my $dumps = $node->basedir;

# Everything an event can have, holes at the end, positions out of the table's
# order, and a settled position.
$node->safe_psql(
	'postgres', q(
	INSERT INTO es_event (stream_id, event_type, data)
		SELECT 'load-' || i % 100, 'Loaded', jsonb_build_object('i', i)
		FROM generate_series(1, 5000) i;
	SELECT es_append('ünï"cödé-''1''', E'Odd\\\\Type', '{"text": "line\nbreak \\\\N"}',
		metadata => '{"user": "søren"}', tags => '{a,"b,c","{}"}');
	SELECT es_append('null-1', 'Null', 'null');
	SELECT es_append('long-1', 'Long', to_jsonb(repeat('0123456789', 100000)));
	BEGIN;
	SELECT es_append('early-1', 'Prepared', '{}');
	PREPARE TRANSACTION 'early';));
$node->safe_psql(
	'postgres', q(
	SELECT count(es_append('late-' || i % 20, 'Appended', '{}')) FROM generate_series(1, 100) i;
	SELECT es_settle();));
$node->safe_psql('postgres', q(COMMIT PREPARED 'early'));
$node->safe_psql(
	'postgres', q(
	SELECT count(es_append('late-' || i, 'Appended', '{}')) FROM generate_series(1, 10) i;
	BEGIN;
	SELECT count(es_append('vain-' || i, 'Appended', '{}')) FROM generate_series(1, 10) i;
	ROLLBACK;));
my $original = store_hash($node, 'postgres');
note "the store: $original";

# The restored database holds the same store, and can be used.
sub is_restored
{
	my ($dbname, $name, $expected) = @_;
	my ($last) = ($expected //= $original) =~ /^\d+\|\d+\|\d+\|(\d+)\|(\d+)/;
	my $drawn = (split /\|/, $expected)[4];

	is(store_hash($node, $dbname), $expected, "$name: the same store");
	store_is_sound($node, $name, dbname => $dbname);
	is( $node->safe_psql(
			$dbname, "SELECT es_append('load-7', 'GoesOn', '{}', 50)"),
		'51', "$name: appending goes on");
	is( $node->safe_psql($dbname,
			"SELECT string_agg(event_type || ' ' || (position > $drawn), ' ') FROM es_read_all($last)"),
		'GoesOn true', "$name: behind all that was there");
}

sub run_dump
{
	my ($file, @args) = @_;

	$node->command_ok([ 'pg_dump', '-f', "$dumps/$file", @args ],
		"pg_dump @args");
}

sub run_restore
{
	my ($file, $dbname, @args) = @_;

	$node->safe_psql('postgres', "CREATE DATABASE $dbname")
	  unless $node->safe_psql('postgres',
		"SELECT 1 FROM pg_database WHERE datname = '$dbname'");
	$node->command_ok(
		$file =~ /sql$/
		? [ 'psql', '-XqAt', '-v', 'ON_ERROR_STOP=1', @args, '-f', "$dumps/$file", $dbname ]
		: [ 'pg_restore', '-e', '-d', $dbname, @args, "$dumps/$file" ],
		"restore $file @args");
}

# Each format, whole.
run_dump('plain.sql', 'postgres');
run_restore('plain.sql', 'plain');
is_restored('plain', 'plain');

run_dump('custom', '-Fc', 'postgres');
run_restore('custom', 'custom');
is_restored('custom', 'custom');

run_dump('directory', '-Fd', '-j4', 'postgres');
run_restore('directory', 'directory', '-j4');
is_restored('directory', 'directory, four jobs');

run_restore('custom', 'sections', "--section=$_")
  foreach 'pre-data', 'data', 'post-data';
is_restored('sections', 'by section');

# As INSERT statements, which pass the trigger by another way than COPY.
run_dump('inserts.sql', '--inserts', '--rows-per-insert=100', 'postgres');
run_restore('inserts.sql', 'inserts');
is_restored('inserts', 'inserts');

# The rows alone, into a database that has the extension.
run_dump('data.sql', '--data-only', 'postgres');
$node->safe_psql('postgres', 'CREATE DATABASE data');
$node->safe_psql('data', 'CREATE EXTENSION eventstore');
run_restore('data.sql', 'data');
is_restored('data', 'data only');

# A second time over the same store changes nothing: the ids are taken.
my $twice = store_hash($node, 'data');
$node->command_fails(
	[ 'psql', '-Xqat', '-1', '-v', 'ON_ERROR_STOP=1', '-f', "$dumps/data.sql", 'data' ],
	'the same data again is refused');
is(store_hash($node, 'data'), $twice, 'and nothing has changed');

# In another schema, with what was granted.
$node->safe_psql(
	'postgres', q(
	CREATE ROLE regress_es_reader;
	CREATE ROLE regress_es_writer;
	CREATE DATABASE placed;));
$node->safe_psql(
	'placed', q(
	CREATE SCHEMA "The Store";
	CREATE EXTENSION eventstore SCHEMA "The Store";
	SET search_path = "The Store";
	SELECT es_grant('regress_es_reader', 'reader');
	SELECT es_grant('regress_es_writer', 'writer');
	SELECT count(es_append('load-7', 'Placed', '{}')) FROM generate_series(1, 50);
	ALTER DATABASE placed SET search_path = "The Store";));
my $placed = store_hash($node, 'placed');
run_dump('placed', '-Fc', '--create', 'placed');
$node->safe_psql('postgres', 'ALTER DATABASE placed RENAME TO source');
$node->command_ok([ 'pg_restore', '-e', '--create', '-d', 'postgres', "$dumps/placed" ],
	'restore with --create');
$node->safe_psql('placed', q(
	SET ROLE regress_es_writer;
	SELECT es_append('other-1', 'ByWriter', '{}');
	SELECT count(*) FROM es_read_all();));
sqlstate_is($node,
	q(SET ROLE regress_es_reader; SELECT es_append('other-1', 'ByReader', '{}')),
	'42501', 'grants are as they were', dbname => 'placed');
run_restore('placed', 'placed2');
$node->safe_psql('postgres', 'ALTER DATABASE placed2 SET search_path = "The Store"');
is_restored('placed2', 'another schema', $placed);

# By an owner who is no superuser.  Only a superuser can create the extension,
# so that role was one for a moment; after that it needs to be none.
$node->safe_psql('postgres',
	'CREATE ROLE regress_es_owner LOGIN SUPERUSER; CREATE DATABASE owned; CREATE DATABASE owned2;');
$node->safe_psql($_, 'SET SESSION AUTHORIZATION regress_es_owner; CREATE EXTENSION eventstore')
  foreach 'owned', 'owned2';
$node->safe_psql('postgres', 'ALTER ROLE regress_es_owner NOSUPERUSER');
$node->safe_psql('owned', q(
	SET SESSION AUTHORIZATION regress_es_owner;
	SELECT count(es_append('load-7', 'Owned', '{}')) FROM generate_series(1, 50);
	SELECT es_settle();));
run_dump('owned', '-Fc', '--data-only', '--role=regress_es_owner', 'owned');
run_restore('owned', 'owned2', '--role=regress_es_owner');
is_restored('owned2', 'owner without superuser', store_hash($node, 'owned'));
$node->safe_psql('owned2', q(SELECT es_grant('regress_es_writer', 'writer')));
sqlstate_is($node,
	q(SET ROLE regress_es_writer; INSERT INTO es_event VALUES
		(9000000, 1, now(), gen_random_uuid(), 1, 'forged-1', 'Forged', '{}')),
	'428C9', 'nobody else may insert events with their place set', dbname => 'owned2');

$node->stop;
done_testing();
