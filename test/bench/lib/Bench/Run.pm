# Runs pieces of work: fills the stores, measures their contenders in turn, round after round, and keeps every figure.
#
# Within a round each contender gets one short slice, in an order that moves on by one from round to round, so that what
# else the machine does meets them all alike.  Ratios are taken inside a round and their median over the rounds is told.
package Bench::Run;

use strict;
use warnings;
use File::Temp qw(tempfile);
use Bench::Server;
use Bench::Work;

# Options: server, dir (of the benchmark), rounds, seconds, clients, log (a sub that is told what goes on).
sub new
{
	my ($class, %option) = @_;

	my $self = bless { %option, slice => 0, content => {}, databases => {} }, $class;
	chomp($self->{cpus} = qx(nproc));
	($self->{load}) = split ' ', qx(cat /proc/loadavg);
	$self->create_database('bench');
	$self->{connect_cpu} = $self->measure_connection;
	return $self;
}

sub create_database
{
	my ($self, $db) = @_;

	return if $self->{databases}{$db}++;
	$self->{server}->sql(db => 'postgres', sql => "CREATE DATABASE $db OWNER " . Bench::Server::APP);
	return;
}

# Server CPU seconds that a connection costs by itself; taken off every slice.
sub measure_connection
{
	my ($self) = @_;

	my ($clients, $server) = (20, $self->{server});
	my $script = $self->scratch_file('SELECT 1;');
	my $cpu = $server->cpu_seconds;
	my ($status, $output) = $server->client('pgbench', [ '-n', '-M', 'prepared', '-c', $clients, '-t', 1, '-f', $script ], user => Bench::Server::APP);
	die $output if $status != 0;
	$server->wait_for_quiet;
	return ($server->cpu_seconds - $cpu) / $clients;
}

# Measure one piece of work; returns [ { clients, sync, figures => { KEY => [ one a round ] } }, … ], one for each setting.
# The stores are filled anew for every number of clients, because the fast ones have grown by then.
sub piece
{
	my ($self, $piece) = @_;

	$_->{key} //= $_->{store}, $_->{db} //= 'bench' foreach @{ $piece->{contenders} };
	my @clients = @{ $piece->{clients} // $self->{clients} };
	my @results;
	foreach my $fill ($piece->{fills} ? [@clients] : map { [$_] } @clients)
	{
		my @settings = map { settings($piece, $_) } @$fill;
		$self->{log}->("$piece->{title}, clients: @$fill");
		$self->fill($piece);
		foreach my $round (0 .. ($piece->{rounds} // $self->{rounds}) - 1)
		{
			$self->round($piece, $_, $round) foreach @settings;
		}
		push @results, @settings;
	}
	return \@results;
}

sub settings
{
	my ($piece, $clients) = @_;

	return map { { clients => $clients, sync => $_, figures => {} } } @{ $piece->{sync} // [ 'on', 'off' ] };
}

sub round
{
	my ($self, $piece, $setting, $round) = @_;

	my @contenders = @{ $piece->{contenders} };
	foreach my $turn (0 .. $#contenders)
	{
		my $contender = $contenders[ ($turn + $round) % @contenders ];
		my $measure = $contender->{measure} // \&measure_pgbench;
		my $figure = $measure->($self, $contender, { %$setting, piece => $piece });
		push @{ $setting->{figures}{ $contender->{key} } }, $figure;
	}
	return;
}

# Give every contender's store what it shall hold at the start, unless it is just so.
sub fill
{
	my ($self, $piece) = @_;

	my %done;
	foreach my $contender (@{ $piece->{contenders} })
	{
		my $store = "$contender->{db} $contender->{store}";
		next if $done{$store}++;
		my @seed = @{ $contender->{seed} // $piece->{seed} // [ACCOUNTS] };
		my $content = join ', ', map { "$_->{prefix} $_->{streams} $_->{events}" } @seed;
		next if ($self->{content}{$store} // '') eq $content;

		$self->create_store($contender);
		$self->seed_store($contender, $_) foreach @seed;
		$self->{content}{$store} = $piece->{reads} ? $content : undef;
	}
	$self->{server}->sql(sql => 'CHECKPOINT');
	return;
}

# The extension can only be created by a superuser; the tables of the others belong to the role that uses them.
sub create_store
{
	my ($self, $contender) = @_;

	my ($db, $store, $app) = (@$contender{ 'db', 'store' }, Bench::Server::APP);
	my %where = (db => $db, schema => $store);
	$self->create_database($db);
	my $extension = $store eq 'eventstore' ? 'DROP EXTENSION IF EXISTS eventstore CASCADE; ' : '';
	$self->{server}->sql(%where, sql => "SET client_min_messages = warning; $extension DROP SCHEMA IF EXISTS $store CASCADE");
	$self->{server}->sql(%where, sql => "CREATE SCHEMA $store AUTHORIZATION $app");
	$self->{server}->sql(%where, file => $self->schema_file($store), user => $extension ? 'postgres' : $app);
	return;
}

# stores/STORE.sql, or what stores/STORE.mjs prints.
sub schema_file
{
	my ($self, $store) = @_;

	my $file = "$self->{dir}/stores/$store";
	return "$file.sql" if -e "$file.sql";
	my $sql = qx(node $file.mjs);
	die "cannot print the schema of $store\n" if $? != 0;
	return $self->{printed}{$store} //= $self->scratch_file($sql);
}

sub seed_store
{
	my ($self, $contender, $seed) = @_;

	$self->{server}->sql(
		db => $contender->{db},
		schema => $contender->{store},
		file => "$self->{dir}/stores/$contender->{store}.seed.sql",
		set => { %$seed, payload => payload() });
	return;
}

# A slice of pgbench: { rate, cpu, errors }, rate in events per second, cpu in seconds of the server's per event.
sub measure_pgbench
{
	my ($self, $contender, $setting) = @_;

	my ($piece, $clients) = @$setting{ 'piece', 'clients' };
	my $script = $contender->{script} //= $self->scratch_file(($piece->{client} // '') . $contender->{sql});
	my %variable = ($self->variables($clients), %{ $piece->{vars} // {} }, %{ $contender->{vars} // {} });
	my $threads = $clients < $self->{cpus} ? $clients : $self->{cpus};
	my @arguments = ('-n', '-M', 'prepared', '-c', $clients, '-j', $threads, '-T', $self->{seconds}, '-f', $script);
	push @arguments, '-D', "$_=$variable{$_}" for sort keys %variable;

	my $cpu = $self->{server}->cpu_seconds;
	my ($status, $output) = $self->client('pgbench', \@arguments, $contender, $setting);
	$self->{server}->wait_for_quiet;
	$cpu = $self->{server}->cpu_seconds - $cpu - $clients * $self->{connect_cpu};
	return figure($output, $contender->{unit} // $piece->{unit} // 1, $cpu);
}

# A client that meets an error other than a serialization failure gives up: it counts as one.
sub figure
{
	my ($output, $unit, $cpu) = @_;

	my ($done) = $output =~ /^number of transactions actually processed: (\d+)/m;
	my ($failed) = $output =~ /^number of failed transactions: (\d+)/m;
	my ($tps) = $output =~ /^tps = ([\d.]+)/m;
	my $aborted = () = $output =~ / aborted /g;
	die $output unless $done;
	return { rate => $tps * $unit, cpu => $cpu / ($done * $unit), errors => $failed + $aborted };
}

sub variables
{
	my ($self, $clients) = @_;

	my $slice = $self->slice;
	return (
		slice => $slice,
		n => 0,
		base => $slice * 1_000_000,
		own => int(ACCOUNTS->{streams} / $clients),
		stride => 1,
		type => 'Deposited',
		data => payload());
}

# A number that no other slice has.
sub slice
{
	my ($self) = @_;

	return ++$self->{slice};
}

sub client
{
	my ($self, $program, $arguments, $contender, $setting) = @_;

	return $self->{server}->client(
		$program, $arguments,
		db => $contender->{db},
		schema => $contender->{store},
		user => Bench::Server::APP,
		sync => $setting->{sync});
}

# A query about a contender's store.
sub store_sql
{
	my ($self, $contender, $sql) = @_;

	return $self->{server}->sql(db => $contender->{db}, schema => $contender->{store}, sql => $sql);
}

sub scratch_file
{
	my ($self, $text) = @_;

	my ($handle, $file) = tempfile('script-XXXXXX', DIR => $self->{server}{dir});
	print $handle $text;
	close $handle or die "$file: $!\n";
	return $file;
}

1;
