# Sixteen clients that all append to one stream, any version, beside sixteen that have a stream each.  Not one may fail.
package Bench::Work::hot;

use strict;
use warnings;
use Bench::Work;

my $own = q('account-' || (1000000 + :client_id));
my $one = q('account-1000000');

return ({
	title => '16 clients on one stream',
	group => 'hot',
	clients => [16],
	sync => ['off'],
	contenders => [
		{ store => 'eventstore', label => 'es_append, 16 streams', sql => "SELECT es_append($own, :type, :data);" },
		{ key => 'hot', store => 'eventstore', label => 'es_append, one stream', sql => "SELECT es_append($one, :type, :data);" },
		{ store => 'emmett', label => 'Emmett, one stream (lost races are no errors)', vars => { partition => 'emt:default' }, sql => <<"SQL" },
SELECT * FROM emt_append_to_stream(ARRAY[gen_random_uuid()::text], ARRAY[:data]::jsonb[], ARRAY['{}']::jsonb[],
	ARRAY['1'], ARRAY[:type], ARRAY['E'], $one, 'account', NULL, :partition);
SQL
		{ store => 'advisory', label => 'advisory lock + max(version), one stream', sql => "SELECT append($one, :type, :data);" },
		{ store => 'head', label => 'stream head row, one stream', sql => "SELECT append($one, :type, :data);" },
	],
	wants => [
		{ is => 'rate', of => 'hot', than => 'eventstore', least => 0.6 },
		{ is => 'errors', of => 'hot', most => 0 },
	],
});
