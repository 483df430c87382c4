# Tags are neither lost nor doubled on their way to another server: by a dump,
# by logical replication of the tags, and by that of the events alone.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EsTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_store('main', "wal_level = logical\n", allows_streaming => 'logical');
my $tags = q(SELECT count(*), md5(string_agg(t::text, ' ' ORDER BY t)) FROM es_event_tag t);

sub fill
{
	my ($name) = @_;

	$node->safe_psql('postgres', "
		SELECT es_append('f-' || n, '$name', '1', tags => ARRAY['course:' || n % 3, '$name']) FROM generate_series(1, 20) n;
		INSERT INTO es_event (stream_id, event_type, data, tags)
			SELECT 'i-' || n, '$name', '1', ARRAY['course:' || n % 3, '$name'] FROM generate_series(1, 20) n");
}

fill('first');
$node->safe_psql('postgres', q(SELECT es_retag('{"items": [{"tags": ["course:1"]}]}', '{late}', '{first}')));

# Dump and restore, in one go and in parallel jobs.
my $dump = $node->basedir . '/dump';
$node->command_ok([ 'pg_dump', '-Fd', '-f', $dump, $node->connstr('postgres') ], 'dump');
foreach my $jobs (1, 3)
{
	my $db = "restored_$jobs";

	$node->safe_psql('postgres', "CREATE DATABASE $db");
	$node->command_ok([ 'pg_restore', '--exit-on-error', '-j', $jobs, '-d', $node->connstr($db), $dump ],
		"restore with $jobs jobs");
	is($node->safe_psql($db, $tags), $node->safe_psql('postgres', $tags), 'the tags are the same');
	is($node->safe_psql($db, 'SELECT position, tags FROM es_retagged ORDER BY 1'),
		$node->safe_psql('postgres', 'SELECT position, tags FROM es_retagged ORDER BY 1'),
		'and so is what was retagged');
	is( $node->safe_psql($db, q(SELECT appended FROM es_try_append_if('[{"type": "A", "data": 1}]', '{"items": [{"tags": ["late"]}]}'))),
		'f', 'conditions hold there');
	store_is_sound($node, "restored with $jobs jobs", dbname => $db);
}

# Replicas: one subscribes to the tags as well, one to the events only.
$node->safe_psql('postgres', q(
	CREATE PUBLICATION whole FOR TABLE es_event, es_settled, es_event_tag, es_retagged;
	CREATE PUBLICATION events FOR TABLE es_event, es_settled;));
my %replica;
foreach my $name ('whole', 'events')
{
	my $replica = $replica{$name} = new_store($name);

	$replica->safe_psql('postgres',
		"CREATE SUBSCRIPTION $name CONNECTION \$\$" . $node->connstr('postgres') . "\$\$ PUBLICATION $name");
	$replica->wait_for_subscription_sync($node, $name);
}
# A hole in the positions, such as a rolled-back append leaves.
$node->safe_psql('postgres', q(BEGIN; SELECT es_append('gone-1', 'Gone', '1'); ROLLBACK));
fill('second');
$node->safe_psql('postgres', q(SELECT es_retag('{"items": [{"types": ["second"], "tags": ["course:2"]}]}', '{later}', '{second}')));
$node->wait_for_catchup('whole');
$node->wait_for_catchup('events');
is($replica{whole}->safe_psql('postgres', $tags), $node->safe_psql('postgres', $tags),
	'a replica of events and tags has the same tags');
store_is_sound($replica{whole}, 'replica of events and tags');
is( $replica{events}->safe_psql('postgres',
		q(SELECT count(*) FROM es_event_tag)),
	$node->safe_psql('postgres', q(SELECT sum(cardinality(tags)) FROM es_event)),
	'a replica of the events alone has the tags they were appended with');
store_is_sound($replica{events}, 'replica of the events alone');
is( $replica{events}->safe_psql('postgres', q(SELECT count(*) FROM es_read('{"items": [{"tags": ["course:0", "second"]}]}'))),
	'0', 'a replica shows what is settled');
$node->safe_psql('postgres', 'SELECT es_settle()');
$node->wait_for_catchup('events');
is( $replica{events}->safe_psql('postgres', q(SELECT count(*) FROM es_read('{"items": [{"tags": ["course:0", "second"]}]}'))),
	'12', 'and all once that was written down');

$_->stop foreach values %replica, $node;
done_testing();
