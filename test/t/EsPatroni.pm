# Three nodes under Patroni, with an etcd of their own, as test/examples/patroni
# has them: only names, ports and directories are the test's.  Everything is on
# the loopback, below a temporary directory, and ends with the test.
package EsPatroni;

use strict;
use warnings;

use Cwd qw(abs_path);
use File::Basename qw(dirname);
use HTTP::Tiny;
use JSON::PP;
use POSIX ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Time::HiRes qw(time usleep);

use EsTest qw(wait_until);

my $config = dirname(abs_path(__FILE__)) . '/../examples/patroni';
my $http = HTTP::Tiny->new(timeout => 3);
my @started;                    # clusters to be stopped at the end

# What is missing to run one, or nothing.
sub missing
{
	my @programs = grep { !program($_) } 'etcd', 'patroni';

	return @programs ? join(' and ', @programs) . ' not found' : '';
}

# Debian's programs, wherever PATH points.
sub program
{
	my ($found) = grep { -x } map { "$_/$_[0]" } split(/:/, $ENV{PATH}), '/usr/bin', '/usr/sbin';

	return $found;
}

# Start a program of ours, and remember its process id.
sub start_process
{
	my ($self, $name, $env, @command) = @_;
	my $pid = fork() // die "fork: $!";

	if ($pid == 0)
	{
		# Patroni has passwords of its own for each of its roles.
		delete $ENV{$_} foreach grep { /^PG[A-Z]/ } keys %ENV;
		$ENV{$_} = $env->{$_} foreach keys %$env;
		open STDIN, '<', '/dev/null';
		open STDOUT, '>>', "$PostgreSQL::Test::Utils::log_path/$name.log";
		open STDERR, '>&', \*STDOUT;
		exec @command or POSIX::_exit(127);
	}
	$self->{pid}{$name} = $pid;
}

# End one of them; true once it is gone.
sub kill_process
{
	my ($self, $name, $signal) = @_;
	my $pid = delete $self->{pid}{$name} or return;

	kill $signal, $pid;
	waitpid $pid, 0;
}

# etcd and three nodes; ends when they are all in place and one is synchronous.
sub new
{
	my ($class) = @_;
	my $dir = PostgreSQL::Test::Utils::tempdir();
	my $self = bless { dir => $dir, pid => {}, nodes => [] }, $class;
	my $bindir = qx('@{[ $ENV{PG_CONFIG} // 'pg_config' ]}' --bindir);
	my ($client, $peer) = map { PostgreSQL::Test::Cluster::get_free_port() } 1 .. 2;

	push @started, $self;
	chomp $bindir;
	$self->{etcd} = "127.0.0.1:$client";
	$self->start_process('etcd', {}, program('etcd'),
		'--data-dir', "$dir/etcd", '--name', 'etcd',
		'--listen-client-urls', "http://127.0.0.1:$client",
		'--advertise-client-urls', "http://127.0.0.1:$client",
		'--listen-peer-urls', "http://127.0.0.1:$peer",
		'--initial-advertise-peer-urls', "http://127.0.0.1:$peer",
		'--initial-cluster', "etcd=http://127.0.0.1:$peer",
		'--unsafe-no-fsync');
	wait_until('etcd', sub { $http->get("http://$self->{etcd}/health")->{success} });
	foreach my $n (1 .. 3)
	{
		my ($port, $rest) = map { PostgreSQL::Test::Cluster::get_free_port() } 1 .. 2;

		push @{ $self->{nodes} },
		  {
			name => "node$n",
			port => $port,
			rest => $rest,
			data => "$dir/node$n",
			env => $self->environment(
				PATRONI_NAME => "node$n",
				PATRONI_ETCD3_HOSTS => $self->{etcd},
				PATRONI_RESTAPI_LISTEN => "127.0.0.1:$rest",
				PATRONI_RESTAPI_CONNECT_ADDRESS => "127.0.0.1:$rest",
				PATRONI_POSTGRESQL_LISTEN => "127.0.0.1:$port",
				PATRONI_POSTGRESQL_CONNECT_ADDRESS => "127.0.0.1:$port",
				PATRONI_POSTGRESQL_DATA_DIR => "$dir/node$n",
				PATRONI_POSTGRESQL_BIN_DIR => $bindir,
				PATRONI_POSTGRESQL_PGPASS => "$dir/node$n.pgpass")
		  };
	}
	$self->start_node($_) foreach @{ $self->{nodes} };
	$self->wait_healthy;
	return $self;
}

# The variables of node.env, each of which the test must have a value for.
sub environment
{
	my ($self, %ours) = @_;
	my %env;

	foreach (split /\n/, slurp_file("$config/node.env"))
	{
		$env{$1} = $ours{$1} // $2 if /^(\w+)=(.*)/;
	}
	exists $env{$_} or die "node.env lacks $_" foreach keys %ours;
	$self->{user} = $env{PATRONI_SUPERUSER_USERNAME};
	$ENV{PGPASSWORD} = $self->{password} = $env{PATRONI_SUPERUSER_PASSWORD};
	return \%env;
}

sub start_node
{
	my ($self, $node) = @_;

	$self->start_process($node->{name}, $node->{env}, program('patroni'), "$config/patroni.yml");
}

# One connection string for the cluster: whoever takes it reaches the leader.
sub connstr
{
	my ($self, @nodes) = @_;
	my $ports = join ',', map { $_->{port} } @nodes ? @nodes : @{ $self->{nodes} };
	my $hosts = join ',', map { '127.0.0.1' } split /,/, $ports;

	return "host=$hosts port=$ports user=$self->{user} dbname=postgres connect_timeout=2"
	  . (@nodes ? '' : ' target_session_attrs=read-write');
}

# What Patroni says of the members, by name; empty if none answers.
sub members
{
	my ($self) = @_;

	foreach my $node (@{ $self->{nodes} })
	{
		my $answer = $http->get("http://127.0.0.1:$node->{rest}/cluster");

		return map { $_->{name} => $_ } @{ decode_json($answer->{content})->{members} }
		  if $answer->{success};
	}
	return ();
}

# The node that leads now, by its own word.
sub leader
{
	my ($self) = @_;

	foreach my $node (@{ $self->{nodes} })
	{
		return $node if $http->get("http://127.0.0.1:$node->{rest}/leader")->{status} == 200;
	}
	return undef;
}

# Run SQL; answers (exit status, output, error).  On the leader, or on a node.
sub try
{
	my ($self, $sql, @nodes) = @_;
	my ($out, $err) = ('', '');
	my $file = "$self->{dir}/$$.sql";

	# By a file: psql does not read what it is given where it cannot connect.
	unlink $file;
	append_to_file($file, $sql);
	my $ok = IPC::Run::run([ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-v', 'VERBOSITY=verbose',
			'-d', $self->connstr(@nodes), '-f', $file ], '<', \undef, '>', \$out, '2>', \$err);

	chomp $out;
	return ($ok ? 0 : $? >> 8 || 1, $out, $err);
}

sub query
{
	my ($self, $sql, @nodes) = @_;
	my ($status, $out, $err) = $self->try($sql, @nodes);

	die "$sql\n$err" if $status != 0;
	return $out;
}

# All three there, both standbys streaming, and one of them synchronous unless
# that is not wanted: by etcd's word, without which none may take over.
sub wait_healthy
{
	my ($self, %opt) = @_;
	my $want = $opt{async} ? '2|0' : '2|1';

	wait_until('three healthy nodes', sub {
		my $leader = $self->leader or return 0;
		my ($status, $out) = $self->try(
			q(SELECT count(*) FILTER (WHERE state = 'streaming'), count(*) FILTER (WHERE sync_state <> 'async') FROM pg_stat_replication WHERE application_name LIKE 'node%'),
			$leader);

		my %members = $self->members;
		my $synchronous = grep { $_->{role} eq 'sync_standby' } values %members;

		return 1 if $status == 0 && $out eq $want && $synchronous == !$opt{async};
		usleep(200_000);
		return 0;
	});
	return $self->leader;
}

# Change what etcd holds of the configuration.
sub configure
{
	my ($self, $change) = @_;
	my $answer = $http->request('PATCH', 'http://127.0.0.1:' . $self->leader->{rest} . '/config',
		{ content => encode_json($change), headers => { 'Content-Type' => 'application/json' } });

	$answer->{success} or die "configuration: $answer->{content}";
}

# The process id of the node's server, which is ours.
sub postmaster
{
	my ($self, $node) = @_;

	return (split /\n/, slurp_file("$node->{data}/postmaster.pid"))[0];
}

# Its processes of a kind, by what they call themselves.
sub children
{
	my ($self, $node, $kind) = @_;
	my $postmaster = $self->postmaster($node);

	return map { /^\s*(\d+) .*$kind/ ? $1 : () } split /\n/, `ps -o pid=,args= --ppid $postmaster`;
}

# SIGKILL for a node's server, and for its Patroni first if the whole node goes.
# Answers when.
sub crash
{
	my ($self, $node, %opt) = @_;
	my $postmaster = $self->postmaster($node);
	my @frozen = @{ $opt{frozen} // [] };

	$self->kill_process($node->{name}, 'KILL') if $opt{whole};
	kill 'KILL', $postmaster;
	my $when = time;
	kill 'KILL', @frozen;
	return $when;
}

# Stop everything: Patroni stops its server, and what is left is killed.
sub stop
{
	my ($self) = @_;
	my @left = grep { $self->{pid}{ $_->{name} } } @{ $self->{nodes} };

	kill 'TERM', map { $self->{pid}{ $_->{name} } } @left;
	$self->kill_process($_->{name}, 'TERM') foreach @left;
	foreach my $node (@{ $self->{nodes} })
	{
		my ($pid) = -e "$node->{data}/postmaster.pid" ? $self->postmaster($node) : ();

		kill 'QUIT', $pid if $pid && (readlink("/proc/$pid/cwd") // '') eq $node->{data};
	}
	$self->kill_process('etcd', 'TERM');
}

END
{
	my $status = $?;

	$_->stop foreach @started;
	$? = $status;
}

1;
