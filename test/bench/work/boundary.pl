# Read a boundary, then append if it has not changed, beside three designs in SQL; and what tags cost an append.
#
# Every client has courses of its own, so no conflict is a real one.
package Bench::Work::boundary;

use strict;
use warnings;
use Bench::Work;

my $seed = [ { prefix => 'course-', streams => 100000, events => 4, tagged => 1 } ];

# The transaction of a store: the course is :c, the tags that every event has besides are in $more.
sub eventstore
{
	my ($more) = @_;

	my $query = q(('{"items": [{"tags": ["course:' || :c || '"]}]}')::jsonb);
	return <<"SQL";
SELECT after, cardinality(events) AS seen FROM es_read_boundary($query) \\gset
SELECT es_append_if(jsonb_build_array(jsonb_build_object('type', :type::text, 'data', :data::jsonb,
	'tags', jsonb_build_array('course:' || :c, 'student:' || :x$more))), $query, :after);
SQL
}

sub rival
{
	my ($more, $begin, $end) = @_;

	return <<"SQL";
SELECT after, cardinality(events) AS seen FROM read_boundary('course:' || :c) \\gset
$begin
SELECT append_if(:type, :data, ARRAY['course:' || :c, 'student:' || :x$more], 'course:' || :c, :after);
$end
SQL
}

sub contenders
{
	my ($more) = @_;

	return [
		{ store => 'eventstore', sql => eventstore($more) },
		{ store => 'dcb_table', label => 'table lock + tag B-tree', sql => rival($more, '', '') },
		{ store => 'dcb_advisory', label => 'exclusive advisory lock a tag', sql => rival($more, '', '') },
		{ store => 'dcb_serializable', label => 'SERIALIZABLE + tag B-tree', sql => rival($more, 'BEGIN ISOLATION LEVEL SERIALIZABLE;', 'COMMIT;') },
	];
}

# The same in a store of ten million events beside one of a hundred thousand, four of each course in both.  In both
# a thousand courses and their students are in use; those of the large store lie scattered over it.
sub of_size
{
	my ($label, $db, $courses, $used) = @_;

	return {
		store => 'eventstore', key => $label, label => $label, db => $db, sql => eventstore(''),
		vars => { used => $used, apart => $courses / $used },
		seed => [ { prefix => 'course-', streams => $courses, events => 4, tagged => 1 } ] };
}

my $client = "\\set c :client_id * 5000 + random(1, 5000)\n\\set x random(1, 1000000000)\n";

return (
	{
		title => 'boundary, distinct tags',
		group => 'boundary',
		clients => [16],
		sync => [ 'on', 'off' ],
		seed => $seed,
		client => $client,
		contenders => contenders(''),
		wants => [
			{ is => 'rate', than => 'peers', least => 1.3 },
			{ is => 'errors', most => 0 },
		],
	},
	{
		title => 'boundary, one tag that all events share',
		group => 'boundary',
		clients => [16],
		sync => [ 'on', 'off' ],
		seed => $seed,
		client => $client,
		contenders => contenders(", 'tenant:1'"),
		wants => [
			{ is => 'rate', than => 'peers', least => 2.0 },
			{ is => 'errors', most => 0 },
		],
	},
	{
		title => 'append with two tags',
		group => 'boundary',
		client => $client,
		contenders => [
			{ store => 'eventstore', label => 'es_append', sql => "SELECT es_append('order-' || :x, :type, :data);" },
			{ key => 'tags', store => 'eventstore', label => 'es_append, two tags', sql => "SELECT es_append('order-' || :x, :type, :data, tags => ARRAY['course:' || :c, 'student:' || :x]);" },
		],
		wants => [ { is => 'rate', of => 'tags', than => 'eventstore', least => 0.8 } ],
	},
	{
		title => 'boundary in 10 M events',
		group => 'boundary_big',
		asked => 1,
		fills => 'once',
		sync => ['off'],
		clients => [ 1, 16 ],
		client => "\\set c random(1, :used) * :apart\n\\set x :c * 7 + random(1, 4)\n",
		contenders => [
			of_size('100 k', 'bench', 25_000, 1000),
			of_size('10 M', 'bench_big', 2_500_000, 1000),
			of_size('10 M, all of its courses in use', 'bench_big', 2_500_000, 2_500_000) ],
		wants => [ map { { is => $_, of => '10 M', than => '100 k', most => 1.3 } } qw(cost cpu) ],
	});
