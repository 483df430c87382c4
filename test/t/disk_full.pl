# A full disk, for the database and for WAL, again and again, under writers, a
# projection and a reader.
#
# A database without room answers 53100 to who needs some, and goes on reading;
# a server that cannot write WAL goes down.  Once there is room everything must
# go on by itself, or after a start, and then: what was acknowledged is there,
# whole; the reader has met everything once, in order; the read model is that
# of the events, and no event was blamed for the disk and parked.
#
# ES_ROUNDS says how often each disk is filled (1).
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EsDisks;
BEGIN { EsDisks::mount_disks(data => '100m', wal => '64m') }
use EsTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

plan skip_all => 'file systems cannot be mounted here' unless defined small_disk('data');

my $rounds = $ENV{ES_ROUNDS} || 1;
my $writers = 6;
my $per_database = 8;    # fills, before the disk would really be full
my $node = new_store('main', <<'CONF', extra => [ '--wal-segsize=1', '--waldir=' . small_disk('wal') . '/pg_wal' ]);
restart_after_crash = on
checkpoint_timeout = 1h
max_wal_size = 1GB
wal_recycle = off
CONF
my %fills = (data => 0, wal => 0);
my %states;              # SQLSTATEs that writers were told, by disk
my %found = (lost => 0, doubled => 0, reordered => 0);
my ($unsound, $acknowledged, $restarts, $database) = (0, 0, 0, 0);
my $told;                # last position that the reader met
my @met;

mkdir small_disk('data') . '/tablespace';
$node->safe_psql('postgres', "CREATE TABLESPACE small LOCATION '" . small_disk('data') . "/tablespace'");

sub sql
{
	return ask_server($node, $_[0], 'store');
}

sub new_database
{
	ask_server($node, $_) foreach 'DROP DATABASE IF EXISTS store', 'CREATE DATABASE store TABLESPACE small';
	sql(<<'SQL');
CREATE EXTENSION eventstore;
CREATE TABLE total (stream_id text PRIMARY KEY, events bigint, pad text);
BEGIN;
SELECT es_create_projection('total', tables => '{total}', on_error => 'skip');
SELECT es_on_batch('total', 'INSERT INTO total AS t SELECT stream_id, count(*) FROM new_events GROUP BY 1
	ON CONFLICT (stream_id) DO UPDATE SET events = t.events + excluded.events');
COMMIT;
CREATE TABLE told (n bigint GENERATED ALWAYS AS IDENTITY, position bigint);
CREATE FUNCTION pad() RETURNS text LANGUAGE sql AS
	$$ SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 60) $$;
SQL
	$database++;
	$told = 0;
}

# Batches, each on its own or as the second of a transaction; what is printed
# is acknowledged.
sub writer_script
{
	my ($writer) = @_;
	my $script = "\\set ON_ERROR_STOP off\nSET application_name = writer;\n";

	foreach my $n (1 .. 4000)
	{
		my $size = 1 + $n % 4;

		$script .= "SELECT '$n' FROM es_append_batch('s-' || ($n + $writer) % 9,
			array_fill('Written'::text, ARRAY[$size]),
			array_fill(jsonb_build_object('u', '$writer.$n', 'pad', pad()), ARRAY[$size]));\n";
	}
	return $script;
}

# Positions that this reader meets must grow, and name events that stay.
sub read_on
{
	my $rows = eval { $node->safe_psql('store', "SELECT position FROM es_read_all($told, 2000)") } // return;

	push @met, split /\n/, $rows;
	foreach (split /\n/, $rows)
	{
		$found{reordered}++ if $_ <= $told;
		$told = $_;
	}
}

sub wait_for_writers
{
	my ($load, $pattern) = @_;

	wait_until("writers to be told $pattern", sub {
		read_on();
		return grep { -e "$_->{file}.err" && slurp_file("$_->{file}.err") =~ $pattern } @$load;
	});
}

sub acknowledged
{
	my ($load) = @_;
	my %units;

	foreach my $writer (0 .. $#$load)
	{
		next unless -e "$load->[$writer]{file}.out";
		$units{"$writer.$_"} = 1 foreach grep { /^\d+$/ } split /\n/, slurp_file("$load->[$writer]{file}.out");
	}
	return \%units;
}

# Up again, by itself or by us, once there is room.
sub come_up
{
	my $end = time + 5;

	while (time < $end)
	{
		return if (eval { ($node->psql('postgres', 'SELECT 1'))[0] } // 2) == 0;
		last if !-e $node->data_dir . '/postmaster.pid';
		usleep(20_000);
	}
	$node->stop('immediate', fail_ok => 1);
	$restarts++;
	$node->start;
}

sub fill
{
	my ($disk, $name) = @_;
	my $base = sql('SELECT coalesce(max(position), 0) FROM es_event');
	my $offset = -s $node->logfile;
	my $ballast = fill_disk($disk, $disk eq 'data' ? 1500 : 3000);
	my @load = map { psql_start($node, writer_script($_), dbname => 'store') } 0 .. $writers - 1;
	my $runner = psql_start($node, "\\set ON_ERROR_STOP off\n" . "CALL es_run_projections();\nSELECT pg_sleep(0.01);\n" x 2000, dbname => 'store');

	if ($disk eq 'data')
	{
		wait_for_writers(\@load, qr/ERROR:  53100:/);
		usleep(200_000);
		read_on();
		unlink $ballast;
	}
	else
	{
		wait_until('the server to go down', sub { slurp_file($node->logfile, $offset) =~ /PANIC:.*No space left/s });
		usleep(rand 500_000);
		unlink $ballast;
		come_up();
	}
	if ($disk eq 'data')
	{
		# The same sessions go on.
		my $before = keys %{ acknowledged(\@load) };
		wait_until('writers to go on', sub { keys %{ acknowledged(\@load) } > $before + 20 });
	}
	sql(q(SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
		WHERE application_name = 'writer' OR query LIKE 'CALL es_run%' OR query LIKE '%pg_sleep(0.01)%' AND pid <> pg_backend_pid()));
	eval { psql_finish($_) } foreach @load, $runner;
	$fills{$disk}++;
	foreach my $writer (@load)
	{
		$states{$disk}{$_}++ foreach slurp_file("$writer->{file}.err") =~ /^psql:.*?(?:ERROR|FATAL|PANIC|WARNING):  (\w{5}):/mg;
	}
	look($name, $base, acknowledged(\@load));
	unlink glob "$_->{file}.*" foreach @load, $runner;
}

# What is there, beside what was told.
sub look
{
	my ($name, $base, $units) = @_;
	my %stored = sql("SELECT data->>'u', count(*) FROM es_event WHERE position > $base GROUP BY 1") =~ /^(\S+)\|(\d+)$/mg;
	my @lost = grep { !$stored{$_} } keys %$units;
	my @torn = grep { $stored{$_} != 1 + (split /\./)[1] % 4 } keys %stored;
	my $parked;

	$acknowledged += keys %$units;
	$found{lost} += @lost;
	$found{doubled} += @torn;
	diag("$name: lost @lost, not whole @torn") if @lost || @torn;
	sql(q(SELECT count(es_append('after-1', 'Written', '{"u": "0.0"}'))));
	read_on() for 1 .. 3;
	$parked = sql(q(CALL es_run_projections();
		SELECT (SELECT count(*) FROM es_parked) +
			(SELECT count(*) FROM (SELECT stream_id, count(*) FROM es_event GROUP BY 1 EXCEPT SELECT stream_id, events FROM total) x) +
			(SELECT count(*) FROM es_projection WHERE status <> 'live')));
	$unsound += $parked;
	diag("$name: read model wrong, parked, or stopped: $parked") if $parked;
	my $met = join ',', @met;
	my $missed = sql("CREATE TEMP TABLE met (position bigint);
		INSERT INTO met SELECT unnest('{$met}'::bigint[]);
		SELECT (SELECT count(*) FROM (SELECT position FROM es_event WHERE position <= $told AND position > $base
				EXCEPT SELECT position FROM met) x) || ' ' ||
			(SELECT count(*) FROM (SELECT position FROM met EXCEPT SELECT position FROM es_event) x)");
	my ($skipped, $gone) = split / /, $missed;
	$found{lost} += $skipped + $gone;
	diag("$name: the reader skipped $skipped, $gone events it met are gone") if $skipped || $gone;
	my $errors = sql(q(SELECT count(*) FROM es_check() WHERE status <> 'ok'));
	$unsound += $errors;
	diag("$name: es_check() finds $errors") if $errors;
	@met = ();
	ask_server($node, 'CHECKPOINT');
}

foreach my $round (1 .. $rounds)
{
	new_database() if $round % ($per_database / 2) == 1 || !$database;
	fill($_, "round $round, $_") foreach 'data', 'wal';
}
foreach my $disk (sort keys %states)
{
	note "$disk: writers were told " . join ', ', map { "$_ $states{$disk}{$_} times" } sort keys %{ $states{$disk} };
}
note "$acknowledged batches acknowledged; the server had to be started by hand $restarts times";
is($fills{data} + $fills{wal}, 2 * $rounds, "the disks were full $fills{data} times for data, $fills{wal} times for WAL");
is(join(' ', sort grep { $_ ne '57P01' } keys %{ $states{data} }), '53100', 'without room for data writers were told so, and nothing else');
is($found{lost}, 0, 'nothing acknowledged or read is lost');
is($found{doubled}, 0, 'no batch is there by half or twice');
is($found{reordered}, 0, 'the reader met everything in order');
is($unsound, 0, 'read models are those of the events, nothing is parked, es_check() finds nothing');
report_figures(faults => $fills{data} + $fills{wal}, %found);

$node->stop;
done_testing();
