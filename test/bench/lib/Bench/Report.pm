# Turns figures into Markdown: one table a group with every contender, and one of what was wanted and what was met.
package Bench::Report;

use strict;
use warnings;
use List::Util qw(min max);
use Exporter qw(import);

our @EXPORT = qw(machine details summary);

my %name = (
	plain => 'plain INSERT',
	eventstore => 'eventstore',
	emmett => 'Emmett',
	advisory => 'advisory lock + max(version)',
	head => 'stream head row');

my %measure_name = (rate => 'events/s', cost => 'time per event', pace => 'events per second of server CPU', cpu => 'server CPU per event', bytes => 'bytes per event', errors => 'errors');

sub median
{
	my @sorted = sort { $a <=> $b } @_;
	return @sorted % 2 ? $sorted[ $#sorted / 2 ] : ($sorted[ @sorted / 2 - 1 ] + $sorted[ @sorted / 2 ]) / 2;
}

sub label
{
	my ($contender) = @_;

	return $contender->{label} // $name{ $contender->{store} } // $contender->{store};
}

# One line that says what was measured on.
sub machine
{
	my ($server, $run) = @_;

	my $cpus = $run->{cpus};
	my ($model) = slurp('/proc/cpuinfo') =~ /^model name\s*:\s*(.*)/m;
	my ($memory) = slurp('/proc/meminfo') =~ /^MemTotal:\s*(\d+)/m;
	my ($version) = split ' ', $server->sql(db => 'postgres', sql => 'SHOW server_version');
	my ($year, $month, $day) = (localtime)[ 5, 4, 3 ];
	my $text = sprintf "%d-%02d-%02d, PostgreSQL %s, %d × %s, %.0f GB of memory",
	  $year + 1900, $month + 1, $day, $version, $cpus, $model // 'CPU', $memory / 2**20;
	$text .= ", load $run->{load} before the start" if $run->{load};
	return sprintf "%s; medians of %d rounds of %d s (smallest–largest)\n", $text, @$run{ 'rounds', 'seconds' };
}

sub slurp
{
	my ($path) = @_;

	open my $file, '<', $path or return '';
	local $/;
	return <$file>;
}

# The value of a measure in one round; cost is the inverse of rate, and pace of cpu.
sub value
{
	my ($figure, $is) = @_;

	return $is eq 'cost' ? 1 / $figure->{rate} : $is eq 'pace' ? 1 / $figure->{cpu} : $figure->{$is};
}

# A measure of one contender as a ratio to another's, round by round.
sub ratios
{
	my ($setting, $is, $of, $than) = @_;

	my ($ours, $theirs) = @{ $setting->{figures} }{ $of, $than };
	return map { value($ours->[$_], $is) / value($theirs->[$_], $is) } 0 .. $#$ours;
}

# A table of every contender of a piece of work, one row for each setting.
sub details
{
	my ($piece, $results) = @_;

	my ($baseline, @others) = @{ $piece->{contenders} };
	my $shows = $piece->{shows} // 'rate';
	my @lines = ("### $piece->{title}\n");
	push @lines, row('clients', 'sync commit', label($baseline) . " ($measure_name{$shows})", map { label($_) } @others);
	push @lines, row(map { '---' } 1 .. 3 + @others);
	foreach my $setting (@$results)
	{
		my @figures = @{ $setting->{figures}{ $baseline->{key} } };
		push @lines, row(
			@$setting{ 'clients', 'sync' },
			absolute($shows, @figures),
			map { relative($setting, $shows, $_->{key}, $baseline->{key}) } @others);
	}
	return join('', @lines, "\n");
}

sub row
{
	return '| ' . join(' | ', @_) . " |\n";
}

sub absolute
{
	my ($shows, @figures) = @_;

	my $text = spread('%.0f', map { value($_, $shows) } @figures);
	$text .= sprintf ', %.1f µs CPU', 1e6 * median(map { $_->{cpu} } @figures) if defined $figures[0]{cpu};
	return $text . errors(@figures);
}

sub relative
{
	my ($setting, $shows, $of, $than) = @_;

	my @figures = @{ $setting->{figures}{$of} };
	my $text = spread('%.2f', ratios($setting, $shows, $of, $than));
	$text .= sprintf ', CPU %.2f', median(ratios($setting, 'cpu', $of, $than)) if defined $figures[0]{cpu};
	return $text . errors(@figures);
}

sub spread
{
	my ($format, @values) = @_;

	my $text = sprintf $format, median(@values);
	$text .= sprintf " ($format–$format)", min(@values), max(@values) if @values > 1;
	return $text;
}

sub errors
{
	my (@figures) = @_;

	my $errors = 0;
	$errors += $_->{errors} foreach @figures;
	return $errors ? ", $errors errors" : '';
}

# The rows of the table of wants, one for each want of each piece: [ [ piece, results ], … ].
sub summary
{
	my (@measured) = @_;

	my @lines = (row('work', 'wanted', 'seen', 'met'), row(('---') x 4));
	foreach my $pair (@measured)
	{
		my ($piece, $results) = @$pair;
		push @lines, map { want_row($piece, $results, $_) } expand_wants($piece);
	}
	return join('', @lines);
}

# `than => 'peers'` is one want for each store that is neither ours nor the baseline.
sub expand_wants
{
	my ($piece) = @_;

	my @peers = grep { $_->{store} !~ /^(?:plain|eventstore)$/ } @{ $piece->{contenders} };
	return map {
		my $want = $_;
		($want->{than} // '') eq 'peers' ? map { { %$want, than => $_->{key} } } @peers : $want;
	} @{ $piece->{wants} };
}

sub want_row
{
	my ($piece, $results, $want) = @_;

	my %contender = map { $_->{key} => $_ } @{ $piece->{contenders} };
	my $of = $want->{of} // 'eventstore';
	my ($sign, $limit) = defined $want->{most} ? ('≤', $want->{most}) : ('≥', $want->{least});
	my @seen = map { seen($_, $want, $of) } @$results;
	my @missed = grep { defined $want->{most} ? $_->{value} > $limit : $_->{value} < $limit } @seen;
	my ($worst) = sort { ($a->{value} <=> $b->{value}) * (defined $want->{most} ? -1 : 1) } @missed;
	return row(
		$piece->{title} . (defined $want->{of} ? ': ' . label($contender{$of}) : ''),
		"$measure_name{$want->{is}} $sign $limit" . (defined $want->{than} ? ' × ' . label($contender{ $want->{than} }) : ''),
		spread('%.2f', map { $_->{value} } @seen),
		@missed ? sprintf('in %d of %d; %.2f with %s', @seen - @missed, scalar @seen, @$worst{ 'value', 'setting' }) : 'yes');
}

# What one setting showed of a want.
sub seen
{
	my ($setting, $want, $of) = @_;

	my @values =
	  defined $want->{than}
	  ? ratios($setting, $want->{is}, $of, $want->{than})
	  : map { value($_, $want->{is}) } @{ $setting->{figures}{$of} };
	return { value => median(@values), setting => "$setting->{clients} client" . ($setting->{clients} == 1 ? '' : 's') . ", sync $setting->{sync}" };
}

1;
