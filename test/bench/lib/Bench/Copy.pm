# COPY FROM STDIN as a contender: pgbench cannot, so psql does it, timed from start to end.
package Bench::Copy;

use strict;
use warnings;
use Exporter qw(import);
use File::Temp qw(tempfile);
use Time::HiRes qw(time);
use Bench::Work;

our @EXPORT_OK = qw(measure_copy);

use constant EVENTS_PER_SECOND => 40_000;    # a guess, to fill about the time of a slice

# A measure that copies into a table, $block events per COPY and transaction; 0 is one COPY of all.
sub measure_copy
{
	my ($table, $block) = @_;

	return sub {
		my ($bench, $contender, $setting) = @_;
		my $events = EVENTS_PER_SECOND * $bench->{seconds};
		my ($handle, $file) = tempfile('copy-XXXXXX', DIR => $bench->{server}{dir}, UNLINK => 1);
		write_copies($handle, $table, $events, $block || $events, $bench->slice * 1_000_000);
		close $handle or die "$file: $!\n";

		my $cpu = $bench->{server}->cpu_seconds;
		my $start = time;
		my ($status, $output) = $bench->client('psql', [ '-Xq', '-v', 'ON_ERROR_STOP=1', '-f', $file ], $contender, $setting);
		my $seconds = time - $start;
		die "psql: $output" if $status != 0;
		$bench->{server}->wait_for_quiet;
		unlink $file;
		return {
			rate => $events / $seconds,
			cpu => ($bench->{server}->cpu_seconds - $cpu - $bench->{connect_cpu}) / $events,
			errors => 0,
		};
	};
}

# The streams are the seeded ones in turn, as for the other contenders; es_event counts versions itself.
sub write_copies
{
	my ($handle, $table, $events, $block, $base) = @_;

	my $streams = ACCOUNTS->{streams};
	my $counts = $table eq 'es_event';
	my $columns = $counts ? 'stream_id, event_type, data' : 'stream_id, version, event_type, data';
	my $data = payload();
	for (my $n = 0; $n < $events; $n += $block)
	{
		print $handle "COPY $table ($columns) FROM STDIN;\n";
		foreach my $row ($n .. $n + $block - 1)
		{
			my $stream = 'account-' . (1000000 + int($row / 100) % $streams);
			print $handle join("\t", $stream, $counts ? () : $base + $row, 'Deposited', $data), "\n";
		}
		print $handle "\\.\n";
	}
	return;
}

1;
