# The files in test/examples/monitoring with the programs they are for: both
# exporters are scraped and every metric is there, with the store's values; the
# rules do what they say; the dashboard asks for nothing that does not exist.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EsTest;
use HTTP::Tiny;
use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;

my $files = "$FindBin::RealBin/../examples/monitoring";
my %program = map { my $name = $_; $name => (grep { -x } map { "$_/$name" } split /:/, $ENV{PATH})[0] }
  qw(prometheus-postgres-exporter prometheus-sql-exporter promtool);
my @missing = sort grep { !$program{$_} } keys %program;
plan skip_all => 'SKIPPED: no exporter was scraped, for these are missing: ' . join(', ', map { s/^promtool$/prometheus/r } @missing)
  if @missing;

my $dir = PostgreSQL::Test::Utils::tempdir_short();
my $node = new_store('main');
$node->safe_psql(
	'postgres', q(
	CREATE ROLE monitor LOGIN;
	GRANT pg_monitor TO monitor;
	SELECT es_append('s-' || n % 3, 'A', '{}') FROM generate_series(1, 12) n;
	CREATE TABLE total (n int);
	SELECT es_create_projection('good one', tables => '{total}');
	SELECT es_on('good one', 'B', 'SELECT 1');
	SELECT es_create_projection('bad "one"', tables => '{total}');
	SELECT es_on('bad "one"', 'A', 'SELECT 1 / 0');
	CALL es_run_projections();
	SELECT es_append('s-0', 'A', '{}');));
$node->psql('postgres', q(SELECT es_append('s-0', 'A', '{}', 1)));
wait_until('the counters', sub { $node->safe_psql('postgres', 'SELECT appended, conflicts FROM es_stat_store') eq '13|1' });

# A long piece of work, so that there is one to be seen.
my $blocker = $node->background_psql('postgres');
$blocker->query_safe('BEGIN');
$blocker->query_safe('LOCK TABLE es_retagged IN ACCESS EXCLUSIVE MODE');
my $check = psql_start($node, 'SELECT es_check();');
wait_until('the check', sub { $node->safe_psql('postgres', 'SELECT phase FROM es_progress') eq 'tags' });

# name{label="value",...} => value
sub scrape
{
	my ($port) = @_;
	my $answer = HTTP::Tiny->new(timeout => 20)->get("http://127.0.0.1:$port/metrics");

	return () unless $answer->{success};
	return map { /^(\w+(?:\{.*\})?) (\S+)$/ ? ($1 => $2) : () } split /\n/, $answer->{content};
}

# Start an exporter and scrape it until it has got everything.
sub metrics_of
{
	my ($port, $enough, @command) = @_;
	my ($log, %metrics) = ('');
	my $exporter = IPC::Run::start(\@command, '<', \undef, '>', \$log, '2>&1');
	my $ended = eval {
		wait_until("$command[0]", sub {
			$exporter->pump_nb;
			%metrics = scrape($port);
			return grep { $_ =~ $enough } keys %metrics;
		});
		1;
	};
	diag("$@$log") unless $ended;
	$exporter->kill_kill;
	return %metrics;
}

# One metric's series, as "labels value" lines without the labels left out.
sub series
{
	my ($metrics, $name, $column) = @_;
	my @found;

	foreach my $key (grep { /^\Q$name\E\{/ } keys %$metrics)
	{
		my %labels = $key =~ /(\w+)="((?:[^"\\]|\\.)*)"/g;
		next if defined $column && $labels{col} ne $column;
		delete @labels{qw(col driver host database user sql_job server)};
		push @found, join(',', map { "$_=" . $labels{$_} =~ s/\\(["\\])/$1/gr } sort keys %labels) . ' ' . $metrics->{$key};
	}
	return join "\n", sort @found;
}

my %wanted;		# metric => series, by the database
sub want
{
	my ($prefix, $view, $labels, %columns) = @_;

	foreach my $name (keys %columns)
	{
		$wanted{"${prefix}_$name"} = join "\n", sort split /\n/,
		  $node->safe_psql('postgres', "SELECT $labels || ' ' || $columns{$name} FROM $view");
	}
}
want('eventstore_store', 'es_stat_store', q('datname=postgres'), map { $_ => $_ }
	qw(events streams table_bytes index_bytes archive_bytes appended conflicts rejected retries last_position settled_position settled_age_seconds));
want('eventstore_projection', 'es_stat_projection', q('datname=postgres,mode=' || mode || ',projection=' || name),
	(map { $_ => $_ } qw(position lag_events events parked)), stopped => q((status = 'stopped')::int), paused => q((status = 'paused')::int));
want('eventstore_job', 'es_progress', q('datname=postgres,job=' || job || ',phase=' || phase), total => 'total');
my @moving = qw(eventstore_store_events_per_second eventstore_store_holder_age_seconds eventstore_projection_lag_seconds eventstore_job_done);

# Every metric that the rules for names produce, which both are to have.
my @names = slurp_file("$files/sql_exporter_rules.yml") =~ /record: (\w+)/g;
is_deeply([ sort @names ], [ sort keys %wanted, @moving ], 'the test knows every metric');

my $host = $node->host;
my $address = 'host=' . $host . ' port=' . $node->port . ' user=monitor dbname=postgres sslmode=disable';
my $port = PostgreSQL::Test::Cluster::get_free_port();
my %metrics;
{
	local $ENV{DATA_SOURCE_NAME} = $address;
	%metrics = metrics_of($port, qr/^eventstore_job_total/, $program{'prometheus-postgres-exporter'}, "--web.listen-address=127.0.0.1:$port",
		"--extend.query-path=$files/postgres_exporter.yaml", '--disable-default-metrics', '--disable-settings-metrics',
		map { "--no-collector.$_" } `$program{'prometheus-postgres-exporter'} --help 2>&1` =~ /--(?:\[no-\])?collector\.(\w+)/g);
}
is(series(\%metrics, $_), $wanted{$_}, "postgres_exporter: $_") foreach sort keys %wanted;
isnt(series(\%metrics, $_), '', "postgres_exporter: $_ is there") foreach @moving;

$port = PostgreSQL::Test::Cluster::get_free_port();
my $config = slurp_file("$files/sql_exporter.yml");
my $connection = 'postgres://monitor@/postgres?host=' . $host . '&port=' . $node->port . '&sslmode=disable';
like($config, qr/^\s+- postgres:\S+$/m, 'there is a connection to replace');
$config =~ s/^(\s+- )postgres:\S+$/$1$connection/m;
append_to_file("$dir/sql_exporter.yml", $config);
%metrics = metrics_of($port, qr/^sql_eventstore_job\b.*col="total"/, $program{'prometheus-sql-exporter'}, "-web.listen-address=127.0.0.1:$port",
	"-config.file=$dir/sql_exporter.yml");
foreach my $name (sort keys %wanted, @moving)
{
	my ($metric, $column) = slurp_file("$files/sql_exporter_rules.yml") =~ /record: \Q$name\E\n.*\((sql_\w+)\{col="(\w+)"\}\)/;
	my $found = series(\%metrics, $metric, $column);

	exists $wanted{$name} ? is($found, $wanted{$name}, "sql_exporter: $name") : isnt($found, '', "sql_exporter: $name is there");
}

$blocker->query_safe('ROLLBACK');
$blocker->quit;
psql_finish($check);

# The rules.
foreach my $command ([ 'check', 'rules', 'alerts.yml', 'sql_exporter_rules.yml' ], [ 'test', 'rules', 'alerts_test.yml' ])
{
	my ($out, $err) = ('', '');
	my $ok = IPC::Run::run([ 'sh', '-c', 'cd "$0" && exec "$@"', $files, $program{promtool}, @$command ], '<', \undef, '>', \$out, '2>', \$err);
	ok($ok, "promtool @$command") or diag($out . $err);
}

# The dashboard: what it asks for exists, and is PromQL.
my $dashboard = JSON::PP->new->decode(slurp_file("$files/dashboard.json"));
my @expressions = map { $_->{expr} } map { @{ $_->{targets} } } @{ $dashboard->{panels} };
my %known = map { $_ => 1 } @names;
my %asked = map { $_ => 1 } map { /\b(eventstore_\w+)/g } @expressions, slurp_file("$files/alerts.yml") =~ /expr: (.*)/g;
is_deeply([ grep { !$known{$_} } sort keys %asked ], [], 'dashboard and alerts ask for what is there');
my $n = 0;
append_to_file("$dir/rules.yml", "groups:\n- name: dashboard\n  rules:\n" . join '', map {
	"  - record: r" . ++$n . "\n    expr: " . JSON::PP->new->allow_nonref->encode(s/\$__rate_interval/5m/gr) . "\n" } @expressions);
command_ok([ $program{promtool}, 'check', 'rules', "$dir/rules.yml" ], 'its expressions are PromQL');
is(scalar(keys %{ { map { $_->{id} => 1 } @{ $dashboard->{panels} } } }), scalar @{ $dashboard->{panels} }, 'its panels have ids of their own');

$node->stop;
done_testing();
