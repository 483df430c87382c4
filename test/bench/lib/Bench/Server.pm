# The throw-away server that everything is measured on.
#
# It listens on a unix socket in a directory of its own, runs as an unprivileged
# user, and is stopped by its own data directory.  Its settings are those of a
# small production server: nothing that a careful owner would not turn on.
package Bench::Server;

use strict;
use warnings;
use File::Temp qw(tempdir);
use File::Path qw(remove_tree);

use constant APP => 'bench_app';    # the ordinary role that every contender runs as
use constant TICKS => 100;          # USER_HZ, the unit of CPU times in /proc/PID/stat
use constant { PARENT => 1, UTIME => 11, STIME => 12, CUTIME => 13, CSTIME => 14 };

my @settings = (
	"listen_addresses = ''",
	'shared_buffers = 1GB',
	'max_wal_size = 8GB',
	'checkpoint_timeout = 1h',      # a checkpoint starts every piece of work, and none cuts into it
	'fsync = on',
	'autovacuum = on',
	'max_connections = 100',
	'log_min_messages = fatal');

sub start
{
	my ($class, %option) = @_;

	my $bindir = qx($option{pg_config} --bindir);
	die "cannot run $option{pg_config}\n" if $? != 0;
	chomp $bindir;

	my $dir = tempdir('eventstore-bench-XXXXXX', TMPDIR => 1);
	my $self = bless { bindir => $bindir, dir => $dir, owner => $$ }, $class;
	$self->{user} = $> == 0 ? unprivileged_user() : undef;
	if (defined $self->{user})
	{
		my ($uid, $gid) = (getpwnam $self->{user})[ 2, 3 ];
		chown $uid, $gid, $dir or die "chown $dir: $!\n";
	}

	$self->as_user("$bindir/initdb", '-D', "$dir/data", '-U', 'postgres', '-A', 'trust',
		'--no-locale', '-E', 'UTF8', '--no-sync');
	$self->configure;
	$self->as_user("$bindir/pg_ctl", '-D', "$dir/data", '-l', "$dir/log", '-w', '-s', 'start');
	$self->{running} = 1;
	$self->sql(db => 'postgres', sql => 'CREATE ROLE ' . APP . ' LOGIN');
	return $self;
}

sub unprivileged_user
{
	my ($user) = grep { defined getpwnam $_ } qw(postgres nobody);
	die "PostgreSQL does not run as root, and there is no user postgres or nobody\n" unless $user;
	return $user;
}

sub configure
{
	my ($self) = @_;

	open my $conf, '>>', "$self->{dir}/data/postgresql.conf" or die "postgresql.conf: $!\n";
	print $conf "$_\n" for @settings, "unix_socket_directories = '$self->{dir}'";
	close $conf or die "postgresql.conf: $!\n";
	return;
}

# Run a piece of code on the server started anew with another setting, and start it again as it was.
sub with_setting
{
	my ($self, $name, $value, $code) = @_;

	$self->set($name, $value);
	my @answer = $code->();
	$self->set($name);
	return @answer;
}

# Start anew with a setting, or without it.
sub set
{
	my ($self, $name, $value) = @_;

	$self->sql(db => 'postgres', sql => defined $value ? "ALTER SYSTEM SET $name = $value" : "ALTER SYSTEM RESET $name");
	$self->as_user("$self->{bindir}/pg_ctl", '-D', "$self->{dir}/data", '-l', "$self->{dir}/log", '-w', '-s', '-m', 'fast', 'restart');
	return;
}

# Run a server program, as the unprivileged user if we are root.
sub as_user
{
	my ($self, @command) = @_;

	unshift @command, 'runuser', '-u', $self->{user}, '--' if defined $self->{user};
	my ($status, $output) = output_of(@command);
	die "@command failed:\n$output" if $status != 0;
	return $output;
}

# The exit status and the output, both streams, of a program.
sub output_of
{
	my (@command) = @_;

	open my $pipe, '-|', 'sh', '-c', 'exec "$@" 2>&1', 'sh', @command or die "$command[0]: $!\n";
	local $/;
	my $output = <$pipe> // '';
	close $pipe;
	return ($? >> 8 || $?, $output);
}

# The PG* environment of a client: nothing of the caller's own is let through.
# A store's functions and tables are found by search_path, as an application would.
sub client_env
{
	my ($self, %option) = @_;

	my %env = map { $_ => $ENV{$_} } grep { !/^PG/ } keys %ENV;
	my @options = ("-c search_path=" . ($option{schema} // 'public'));
	push @options, "-c synchronous_commit=$option{sync}" if defined $option{sync};
	return (
		%env,
		PGHOST => $self->{dir},
		PGUSER => $option{user} // 'postgres',
		PGDATABASE => $option{db} // 'bench',
		PGOPTIONS => "@options");
}

# Run a client program; returns its exit status and its output, both streams.
sub client
{
	my ($self, $program, $arguments, %option) = @_;

	local %ENV = $self->client_env(%option);
	return output_of("$self->{bindir}/$program", @$arguments);
}

# Run SQL (sql => text, or file => path) with psql variables (set => {…}); dies when it fails.
sub sql
{
	my ($self, %option) = @_;

	my @arguments = ('-XqAt', '-v', 'ON_ERROR_STOP=1');
	push @arguments, '-v', "$_=$option{set}{$_}" for sort keys %{ $option{set} // {} };
	push @arguments, defined $option{file} ? ('-f', $option{file}) : ('-c', $option{sql});
	my ($status, $output) = $self->client('psql', \@arguments, %option);
	die "psql: $output" if $status != 0;
	chomp $output;
	return $output;
}

# CPU seconds that the server's processes, living and gone, have used until now.
sub cpu_seconds
{
	my ($self) = @_;

	my $postmaster = $self->postmaster_pid;
	my $ticks = 0;
	foreach my $pid ($postmaster, $self->children($postmaster))
	{
		my @stat = process_stat($pid) or next;
		$ticks += $stat[UTIME] + $stat[STIME];
		$ticks += $stat[CUTIME] + $stat[CSTIME] if $pid == $postmaster;
	}
	return $ticks / TICKS;
}

# Wait until the backends of the last client are gone and reaped, so that their CPU time is in the sum.
sub wait_for_quiet
{
	my ($self) = @_;

	my $app = APP;
	for (1 .. 500)
	{
		my @busy = grep { command_line($_) =~ /^(?:$|postgres: $app )/ } $self->children($self->postmaster_pid);
		return unless @busy;
		select undef, undef, undef, 0.01;
	}
	die "backends do not go away\n";
}

sub postmaster_pid
{
	my ($self) = @_;

	open my $file, '<', "$self->{dir}/data/postmaster.pid" or die "the server is gone: $!\n";
	my $pid = <$file>;
	return int $pid;
}

sub children
{
	my ($self, $parent) = @_;

	return grep { parent_of($_) == $parent } map { m{^/proc/(\d+)$} } glob '/proc/[0-9]*';
}

sub parent_of
{
	my ($pid) = @_;

	my @stat = process_stat($pid);
	return @stat ? $stat[PARENT] : 0;
}

# The fields of /proc/PID/stat after the command's name; empty when the process is gone.
sub process_stat
{
	my ($pid) = @_;

	open my $file, '<', "/proc/$pid/stat" or return ();
	my $line = <$file> // return ();
	$line =~ s/^.*\) //;    # the name may hold anything
	return split ' ', $line;
}

sub command_line
{
	my ($pid) = @_;

	open my $file, '<', "/proc/$pid/cmdline" or return 'gone';
	return <$file> // '';
}

sub stop
{
	my ($self) = @_;

	return if $self->{owner} != $$;
	if (delete $self->{running})
	{
		eval { $self->as_user("$self->{bindir}/pg_ctl", '-D', "$self->{dir}/data", '-m', 'immediate', '-w', '-s', 'stop'); 1 }
		  or warn $@;
	}
	remove_tree($self->{dir}) if -d $self->{dir};
	return;
}

sub DESTROY
{
	my ($self) = @_;

	local ($?, $@);
	$self->stop;
	return;
}

1;
