# Random histories: what the readers show is what this program works out.
#
# Events are appended, streams truncated, limited, deleted and undeleted, types
# get new versions, upcasters come, change and go, snapshots are taken, the
# server is stopped and started, old events are archived, in an order drawn by
# lot.  All along, one
# session reads, which has read before: each stream forwards, backwards and
# from the middle, its state now and at a version, the log by type, the read
# model of a projection that is rebuilt.  ES_SEED repeats a run, ES_ROUNDS makes
# it longer.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EsTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $seed = $ENV{ES_SEED} || time;
my $rounds = $ENV{ES_ROUNDS} || 60;
srand $seed;
note "ES_SEED=$seed";

my $node = new_store('main');
my ($writer, $reader);
my @types = qw(Added Carried Noted);
my @names = map { "s-$_" } 1 .. 6;

# The model: the log, its streams, what is said of them, of types and of upcasters.
my @log;
my %events = map { $_ => [] } @names;
my %settings = map { $_ => {} } @names;
my %newest = map { $_ => 1 } @types;
my %upcaster;

$node->safe_psql('postgres', <<'SQL');
SELECT es_create_aggregate('s', initial_state => '0', state_type => 'bigint', snapshot_every => 5);
SELECT es_evolve('s', 'Added', 'state + (event.data)::bigint');
SELECT es_evolve('s', 'Carried', '(state * 31 + (event.data)::bigint) % 1000003');
SELECT es_create_event_type(t) FROM unnest(ARRAY['Added', 'Carried', 'Noted']) t;
CREATE TABLE told (event_type text PRIMARY KEY, n bigint, total bigint);
SELECT es_create_projection('told', tables => '{told}');
SELECT es_on('told', t, 'INSERT INTO told VALUES (event.event_type, 1, (event.data)::bigint)
	ON CONFLICT (event_type) DO UPDATE SET n = told.n + 1, total = told.total + EXCLUDED.total')
	FROM unnest(ARRAY['Added', 'Carried', 'Noted']) t;
CREATE FUNCTION times(data jsonb, n bigint) RETURNS bigint LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN data::bigint * n; END $$;
SQL

sub connect_both
{
	($writer, $reader) = map { $node->background_psql('postgres', on_error_stop => 0) } 1 .. 2;
}

sub one_of { return $_[ rand @_ ]; }

# What was done, for who has to find out why it came out wrong.
my @done;

sub run
{
	push @done, $_[0];
	return query_quietly($writer, $_[0]);
}

# ----- what may happen -----

# Several events of any types; one may name an older version of its type.
sub append
{
	my $stream = one_of(@names);
	my @new = map { { type => one_of(@types), data => int rand 1000 } } 0 .. int rand 8;

	foreach my $event (@new)
	{
		$event->{version} = @{ $events{$stream} } + 1;
		$event->{type_version} = rand() < 0.2 ? 1 + int rand $newest{ $event->{type} } : $newest{ $event->{type} };
		$event->{stream} = $stream;
		push @{ $events{$stream} }, $event;
		push @log, $event;
	}
	run('INSERT INTO es_event (stream_id, event_type, type_version, data) VALUES '
		  . join ', ', map { "('$stream', '$_->{type}', $_->{type_version}, '$_->{data}')" } @new);
}

# By the functions, which write the newest version.
sub append_newest
{
	my ($stream, $type, $data) = (one_of(@names), one_of(@types), int rand 1000);

	push @{ $events{$stream} },
	  { stream => $stream, version => @{ $events{$stream} } + 1, type => $type, type_version => $newest{$type}, data => $data };
	push @log, $events{$stream}[-1];
	run("SELECT es_append('$stream', '$type', '$data')");
}

sub truncate_stream
{
	my $stream = one_of(@names);
	my $before = 1 + int rand(@{ $events{$stream} } + 1);

	run("SELECT es_truncate_stream('$stream', $before)");
	my $set = $settings{$stream};
	$set->{truncate_before} = $before if $before > ($set->{truncate_before} // 0);
}

sub set_stream
{
	my $stream = one_of(@names);
	my $count = rand() < 0.5 ? undef : 1 + int rand 10;
	my $before = rand() < 0.5 ? undef : 1 + int rand 20;

	run(sprintf "SELECT es_set_stream('%s', max_count => %s, truncate_before => %s)", $stream, $count // 'NULL', $before // 'NULL');
	@{ $settings{$stream} }{qw(max_count truncate_before)} = ($count, $before);
}

sub delete_stream
{
	my $stream = one_of(grep { @{ $events{$_} } } @names) // return;

	run("SELECT es_delete_stream('$stream')");
	$settings{$stream}{deleted_before} = @{ $events{$stream} } + 1;
}

sub undelete_stream
{
	my $stream = one_of(grep { $settings{$_}{deleted_before} } @names) // return;

	run("SELECT es_undelete_stream('$stream')");
	delete $settings{$stream}{deleted_before};
}

sub declare_version
{
	my $type = one_of(@types);

	return if $newest{$type} == 4;
	$newest{$type}++;
	run("SELECT es_create_event_type('$type', $newest{$type})");
}

# Plain arithmetic or by a function, of the same type or of another.
sub define_upcaster
{
	my ($type, $version, $factor, $more) = (one_of(@types), 1 + int rand 4, 1 + int rand 3, int rand 5);
	my $new_type = rand() < 0.3 ? one_of(@types) : undef;
	my $product = rand() < 0.5 ? "(event.data)::bigint * $factor" : "times(event.data, $factor)";

	run(sprintf "SELECT es_upcast('%s', %d, 'to_jsonb(%s + %d)'%s)", $type, $version, $product, $more, $new_type ? ", '$new_type'" : '');
	$upcaster{$type}{$version} = { factor => $factor, more => $more, new_type => $new_type };
}

sub drop_upcaster
{
	my $type = one_of(grep { %{ $upcaster{$_} // {} } } @types) // return;
	my $version = one_of(sort keys %{ $upcaster{$type} });

	run("SELECT es_drop_upcaster('$type', $version)");
	delete $upcaster{$type}{$version};
}

sub take_snapshots { run('SELECT es_take_snapshots()'); }

sub run_projection { run('CALL es_run_projections()'); }

sub restart
{
	$_->quit foreach $writer, $reader;
	$node->restart;
	connect_both();
}

# Up to anywhere in the log, in small segments.
sub archive
{
	my $before = run('SELECT coalesce(max(position), 0) FROM es_event_all') * rand();
	my $events = 8 + int rand 40;

	run(sprintf 'CALL es_archive(before_position => %d, segment_events => %d)', 1 + $before, $events);
}

# Each with its share.
my @actions = (
	[ 30, \&append ],
	[ 10, \&append_newest ],
	[ 4, \&truncate_stream ],
	[ 4, \&set_stream ],
	[ 3, \&delete_stream ],
	[ 3, \&undelete_stream ],
	[ 2, \&declare_version ],
	[ 5, \&define_upcaster ],
	[ 3, \&drop_upcaster ],
	[ 5, \&take_snapshots ],
	[ 5, \&run_projection ],
	[ 2, \&archive ],
	[ 1, \&restart ]);
my @lots = map { my ($share, $action) = @$_; ($action) x $share } @actions;

# ----- what should be seen then -----

# An event in its newest form.
sub newest_form
{
	my %event = %{ $_[0] };

	while (my $upcaster = $upcaster{ $event{type} }{ $event{type_version} })
	{
		$event{data} = $event{data} * $upcaster->{factor} + $upcaster->{more};
		$event{type_version}++;
		$event{type} = $upcaster->{new_type} // $event{type};
	}
	return \%event;
}

sub first_shown
{
	my ($stream) = @_;
	my %set = %{ $settings{$stream} };
	my $version = @{ $events{$stream} };
	my $first = 1;

	foreach my $least ($set{truncate_before} // 1, $set{deleted_before} // 1, defined $set{max_count} ? $version - $set{max_count} + 1 : 1)
	{
		$first = $least if $least > $first;
	}
	return $first > $version + 1 ? $version + 1 : $first;
}

sub shown
{
	my ($stream) = @_;
	my $first = first_shown($stream);

	return map { newest_form($_) } grep { $_->{version} >= $first } @{ $events{$stream} };
}

sub line
{
	return join '|', map { @$_{qw(version type type_version data)} } @_;
}

sub state_at
{
	my ($stream, $limit) = @_;
	my $state = 0;

	foreach my $event (shown($stream))
	{
		last if $event->{version} > $limit;
		$state += $event->{data} if $event->{type} eq 'Added';
		$state = ($state * 31 + $event->{data}) % 1000003 if $event->{type} eq 'Carried';
	}
	return $state;
}

my @differences;

sub compare
{
	my ($what, $sql, $expected) = @_;
	my $got = query_quietly($reader, $sql);

	$got =~ tr/\n/|/;
	push @differences, "$what: $sql\n  got      $got\n  expected $expected" if $got ne $expected;
}

my $columns = 'version, event_type, type_version, data';

sub compare_stream
{
	my ($stream) = @_;
	my @shown = shown($stream);
	my $head = @{ $events{$stream} };
	my $middle = int rand($head + 2);
	my $count = int rand 6;
	my @before = reverse grep { $middle == 0 || $_->{version} < $middle } @shown;

	splice @before, $count if @before > $count;
	compare('forwards', "SELECT $columns FROM es_read_stream('$stream')", line(@shown));
	compare('from the middle', "SELECT $columns FROM es_read_stream('$stream', $middle)", line(grep { $_->{version} > $middle } @shown));
	compare('backwards', "SELECT $columns FROM es_read_stream('$stream', $middle, $count, true)", line(@before));
	compare('state', "SELECT version, state FROM es_state('$stream')", "$head|" . state_at($stream, $head));
	compare('state at a version', "SELECT version, state FROM es_state('$stream', $middle)",
		($middle < $head ? $middle : $head) . '|' . state_at($stream, $middle));
	compare('history', "SELECT version, state FROM es_history('$stream')", join '|', map { ($_->{version}, state_at($stream, $_->{version})) } @shown);
}

sub compare_log
{
	my $type = one_of(@types);
	my @newest = map { newest_form($_) } @log;

	compare('the log by type', "SELECT $columns FROM es_read_all(max_count => NULL, event_types => '{$type}')", line(grep { $_->{type} eq $type } @newest));
	compare('the log as stored', "SELECT $columns FROM es_read_all(max_count => NULL, raw => true)", line(@log));
	compare('a query', "SELECT $columns FROM es_read('{\"items\": [{\"types\": [\"$type\"]}]}')",
		line(map { newest_form($_) } grep { $_->{type} eq $type } @log));
	compare('the list', 'SELECT stream_id, version, first_version FROM es_stream_list()',
		join '|', map { ($_, scalar @{ $events{$_} }, first_shown($_)) } grep { @{ $events{$_} } } @names);
}

# The read model as the definitions of now make it.
sub compare_read_model
{
	my %told;

	run("CALL es_rebuild_projection('told')");
	run('CALL es_run_projections()');
	foreach (map { newest_form($_) } @log)
	{
		$told{ $_->{type} }[0]++;
		$told{ $_->{type} }[1] += $_->{data};
	}
	compare('read model', 'SELECT * FROM told ORDER BY event_type', join '|', map { ($_, @{ $told{$_} }) } sort keys %told);
}

# ----- the run -----

connect_both();
my $happened = 0;
foreach my $round (1 .. $rounds)
{
	foreach (0 .. int rand 12)
	{
		one_of(@lots)->();
		$happened++;
	}
	compare_stream($_) foreach @names;
	compare_log();
	compare_read_model() if $round % 5 == 0;
	last if @differences;
}
is(join("\n", @differences[ 0 .. ($#differences < 4 ? $#differences : 4) ]), '',
	"$happened random actions, " . @log . " events: the readers agree with the model (ES_SEED=$seed)");
note join "\n", @done if @differences;
cmp_ok($node->safe_psql('postgres', 'SELECT es_archived_position()'), '>', 0, 'some of them archived');
store_is_sound($node, 'at the end');
$_->quit foreach $writer, $reader;
$node->stop;
done_testing();
