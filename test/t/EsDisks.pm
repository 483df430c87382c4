# Small disks for tests that fill them: file systems in memory.
#
# `use EsDisks size => '64m', ...` runs the test again in a mount name space of
# its own, where small_disk(NAME) is the directory of a disk of that size.
# Nobody else sees the disks, and they are gone when the last process of the
# test is, however it ended.  That takes user name spaces, which PostgreSQL's
# user may use on most systems; small_disk answers undef where not.
package EsDisks;

use strict;
use warnings;

use Cwd qw(abs_path);
use File::Path qw(make_path);
use File::Temp ();

our @EXPORT = qw(small_disk fill_disk);
use Exporter 'import';

# Root in the outer name space mounts; the inner one gives the user back.
my $mount = <<'SHELL';
dir=$1 disks=$2
shift 2
for disk in $disks; do
	mkdir -p "$dir/${disk%=*}"
	mount -t tmpfs -o "size=${disk#*=},mode=0700" none "$dir/${disk%=*}"
done
exec "$@"
SHELL

# Run the test again, where its disks are.
sub mount_disks
{
	my (%disks) = @_;
	my @inside = ('unshare', '--user', "--map-user=$>", '--map-group=' . ($) + 0));
	my @outside = ('unshare', '--user', '--map-root-user', '--mount', 'sh', '-ec', $mount, 'sh');
	my $list = join ' ', map { "$_=$disks{$_}" } sort keys %disks;
	my $dir;

	return if defined $ENV{ES_DISKS};
	make_path($ENV{TESTDATADIR}) if $ENV{TESTDATADIR};
	$dir = File::Temp::tempdir('disksXXXX', DIR => abs_path($ENV{TESTDATADIR} // '.'));
	$ENV{ES_DISKS} = '';
	return if $> == 0;

	# To try it costs nothing: what is mounted goes with the process.
	open my $stderr, '>&', \*STDERR or die "could not keep standard error: $!";
	open STDERR, '>', '/dev/null' or die "could not close standard error: $!";
	my $allowed = system(@outside, $dir, $list, @inside, 'true') == 0;
	open STDERR, '>&', $stderr or die "could not restore standard error: $!";
	return unless $allowed;

	$ENV{ES_DISKS} = $dir;
	exec @outside, $dir, $list, @inside, $^X, (map { "-I$_" } grep { !ref } @INC), $0, @ARGV
	  or die "could not run again: $!";
}

sub small_disk
{
	my ($name) = @_;

	return $ENV{ES_DISKS} ? "$ENV{ES_DISKS}/$name" : undef;
}

# Leave only so many kilobytes free; answers the file that takes the rest.
sub fill_disk
{
	my ($name, $leave) = @_;
	my $file = small_disk($name) . '/ballast';
	my (undef, $line) = split /\n/, `df -Pk '$ENV{ES_DISKS}/$name'`;
	my $free = (split ' ', $line)[3] - $leave;
	my $block = "\0" x 65536;

	open my $ballast, '>', $file or die "could not create $file: $!";
	for (my $written = 0; $written < $free; $written += 64)
	{
		syswrite($ballast, $block) or last;
	}
	close $ballast;
	return $file;
}

1;
