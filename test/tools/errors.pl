#!/usr/bin/env perl
#
# errors.pl [check|write]: the list of the extension's errors in README.md.
#
# Every error that the extension reports by itself is found in the sources:
# ereport() in src/*.c with a level of at least ERROR, and RAISE in
# sql/parts/*.sql.  Message, detail and hint come from there, the SQLSTATE by
# the server's errcodes.h; what a detail or hint leaves unsaid, the table %class
# says for its SQLSTATE.  README.md has the list between two marks.
#
#	check	the list is as it would be written, and each error is provoked by a
#			test: its message is in some expected output, or in a TAP test
#	write	writes it
#
# What no test can provoke stands in test/errors-not-provoked.txt, one message
# a line, with a reason.  PG_CONFIG names the PostgreSQL whose headers are read.
use strict;
use warnings;

use FindBin;

chdir "$FindBin::RealBin/../.." or die;
my $mode = $ARGV[0] // 'check';
my ($begin, $end) = ('<!-- errors: made by test/tools/errors.pl write -->', '<!-- end of errors -->');

# What an SQLSTATE means here, and what to do.
my %class = (
	'09000' => [ 'a trigger dropped the event', 'raise an error in the trigger instead' ],
	'0A000' => [ 'not supported', 'do it another way' ],
	'21000' => [ 'one row was expected', 'let it give one' ],
	'22000' => [ 'the data is not what it must be', 'correct it' ],
	'22003' => [ 'out of range', 'use another stream' ],
	'22004' => [ 'a null where there must be a value', 'give a value' ],
	'22023' => [ 'a bad argument', 'correct it' ],
	'22P02' => [ 'a text that cannot be read as its type', 'correct it' ],
	'23502' => [ 'a null where there must be a value', 'give a value' ],
	'23503' => [ 'what is referred to is not there', 'name what is there' ],
	'23505' => [ 'it is there already', 'read it, and decide again' ],
	'23514' => [ 'a check is violated', 'correct the event' ],
	'25006' => [ 'nothing can be written here', 'connect to the primary' ],
	'27000' => [ 'a trigger changed what the store assigns', 'correct the trigger' ],
	'39P01' => [ 'a trigger function was used otherwise than by the extension', 'leave it to the extension' ],
	'40001' => [ 'others were faster', 'read again and decide again' ],
	'42501' => [ 'no privilege', 'have it granted, see es_grant' ],
	'42601' => [ 'a mistake in the text', 'correct it' ],
	'42602' => [ 'not a name', 'choose another one' ],
	'42622' => [ 'a name that is too long', 'choose a shorter one' ],
	'42701' => [ 'a name comes twice', 'name it once' ],
	'42703' => [ 'no such column', 'name one that exists' ],
	'42704' => [ 'no such thing', 'name one that exists, or create it' ],
	'42710' => [ 'it exists already', 'choose another name, or drop it first' ],
	'42725' => [ 'several could be meant', 'name the one that is meant' ],
	'42804' => [ 'not of the type it must be', 'cast it' ],
	'42809' => [ 'the wrong kind of thing', 'name one of the right kind' ],
	'428C9' => [ 'the store assigns it', 'leave it out' ],
	'42P01' => [ 'no such table', 'name one that exists' ],
	'42P17' => [ 'not allowed in a definition', 'correct the definition' ],
	'42P18' => [ 'the type cannot be told', 'add a cast' ],
	'53100' => [ 'the disk is full', 'make room' ],
	'53200' => [ 'out of memory, or of room in the lock table', 'raise max_locks_per_transaction, or do less at once' ],
	'53300' => [ 'too many connections or processes', 'raise the limit' ],
	'53400' => [ 'a setting is too low', 'raise it' ],
	'54000' => [ 'too many, or too large', 'use fewer' ],
	'55000' => [ 'not in the state that it must be in', 'change that first' ],
	'55006' => [ 'in use by another session', 'try again later' ],
	'55P03' => [ 'no lock was to be had in time', 'try again later' ],
	'57014' => [ 'cancelled', 'try again' ],
	'58030' => [ 'a file could not be read or written', 'look at the server\'s log' ],
	'58P01' => [ 'a file is not there', 'look for it' ],
	'P0001' => [ 'rejected by a decider', 'decide otherwise' ],
	'XX000' => [ 'an internal error', 'report it' ],
	'XX001' => [ 'what is stored cannot be', 'run es_check(), restore from a backup' ]);

my %condition;	# SQLSTATE => the condition's name in words

sub slurp
{
	my ($file) = @_;
	local $/ = undef;

	open my $in, '<', $file or die "could not read $file: $!";
	my $text = <$in>;
	close $in;
	return $text;
}

# ----- SQLSTATEs -----

sub sqlstates
{
	my $pg_config = $ENV{PG_CONFIG} // 'pg_config';
	my $include = qx($pg_config --includedir-server);
	my %by_name;

	chomp $include;
	foreach (split /\n/, slurp("$include/utils/errcodes.h"))
	{
		next unless /#define (ERRCODE_\w+) MAKE_SQLSTATE\('(.)','(.)','(.)','(.)','(.)'\)/;
		$by_name{$1} = "$2$3$4$5$6";
		$condition{"$2$3$4$5$6"} //= lc $1 =~ s/^ERRCODE_//r =~ s/_/ /gr;
	}
	return \%by_name;
}

# ----- reading C -----

# Comments blanked out, strings left alone; lines stay where they are.
sub without_comments
{
	my ($text) = @_;

	$text =~ s{("(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')|/\*.*?\*/}
		{defined $1 ? $1 : do { (my $c = $&) =~ s/[^\n]//g; " $c" }}gse;
	return $text;
}

# The text between the parenthesis at a place and the one that closes it.
sub in_parentheses
{
	my ($text, $at) = @_;
	my $depth = 0;

	pos($text) = $at;
	while ($text =~ /\G(?:"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|([()])|[^()"']+)/gs)
	{
		next unless defined $1;
		$depth += $1 eq '(' ? 1 : -1;
		return substr($text, $at + 1, pos($text) - $at - 2) if $depth == 0;
	}
	die 'parentheses do not match';
}

# What each call of a function in a text is given.
sub calls
{
	my ($text, $name) = @_;
	my @arguments;

	while ($text =~ /\b$name\s*(?=\()/g)
	{
		push @arguments, in_parentheses($text, pos($text));
	}
	return @arguments;
}

# Arguments of a call, split at its own commas.
sub split_arguments
{
	my ($text) = @_;
	my ($depth, @arguments) = (0, '');

	while ($text =~ /("(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|.)/gs)
	{
		my $token = $1;

		$depth++ if $token eq '(';
		$depth-- if $token eq ')';
		if ($token eq ',' && $depth == 0)
		{
			push @arguments, '';
			next;
		}
		$arguments[-1] .= $token;
	}
	return @arguments;
}

# "a" MACRO "b" as one string; several where a condition chooses.  Formats are "%" then.
sub strings
{
	my ($text, $macros) = @_;
	my @alternatives = $text =~ /\?/ ? () : ($text);

	if (!@alternatives)
	{
		my $masked = $text =~ s/("(?:\\.|[^"\\])*")/$1 =~ s{[?:]}{\x01}gr/gesr;
		my ($rest) = $masked =~ /\?(.*)/s;
		my $offset = length($text) - length($rest);
		my $from = 0;

		while ($rest =~ /:|\z/g)
		{
			push @alternatives, substr($text, $offset + $from, $-[0] - $from);
			$from = $+[0];
			last if $-[0] == length $rest;
		}
	}
	my @found;
	foreach (@alternatives)
	{
		s/\b(?:U?INT64_FORMAT)\b/"%d"/g;
		s/\b(\w+)\b(?=[^"]*(?:"[^"]*"[^"]*)*\z)/exists $macros->{$1} ? $macros->{$1} : $1/ge;
		my $string = join '', map { s/^"//r =~ s/"\z//r } /"(?:\\.|[^"\\])*"/g;
		push @found, unescape($string) if $string ne '';
	}
	return @found;
}

sub unescape
{
	my ($string) = @_;

	$string =~ s/\\(["\\'])/$1/g;
	$string =~ s/\\n/\n/g;
	$string =~ s/%%/\x02/g;
	$string =~ s/%[-+ #0]*[\d.*]*(?:l|ll|z)?[a-zA-Z]/\x01/g;
	return $string =~ s/\x02/%/gr;
}

# ----- the errors -----

my %errors;		# "SQLSTATE message" => what is known of it

sub note_error
{
	my ($sqlstate, $message, $details, $hints, $place) = @_;
	my $error = $errors{"$sqlstate $message"} //=
	  { sqlstate => $sqlstate, message => $message, details => [], hints => [], places => [] };

	foreach my $pair ([ 'details', $details ], [ 'hints', $hints ])
	{
		my ($key, $texts) = @$pair;
		foreach my $text (@$texts)
		{
			push @{ $error->{$key} }, $text unless grep { $_ eq $text } @{ $error->{$key} };
		}
	}
	push @{ $error->{places} }, $place;
	return;
}

sub read_c
{
	my ($file, $by_name, $macros) = @_;
	my $text = without_comments(slurp($file));

	while ($text =~ /\bereport\s*(?=\()/g)
	{
		my $at = pos $text;
		my $line = 1 + (substr($text, 0, $at) =~ tr/\n//);
		my $call = in_parentheses($text, $at);
		my ($level) = split_arguments($call);

		next unless $level =~ /\b(ERROR|FATAL|PANIC|\w*level)\b/;
		my ($code) = calls($call, 'errcode');
		my @codes = map { $by_name->{$_} // die "$file:$line: no SQLSTATE $_\n" }
		  ($code // 'ERRCODE_INTERNAL_ERROR') =~ /\b(ERRCODE_\w+)/g;
		my @of = map { my $name = $_; [ map { strings((split_arguments($_))[0], $macros) } calls($call, $name) ] }
		  ('errmsg(?:_internal)?', 'errdetail(?:_internal)?', 'errhint');
		my @plurals = map { map { strings($_, $macros) } (split_arguments($_))[1] } calls($call, 'errmsg_plural');
		my @detail_plurals = map { map { strings($_, $macros) } (split_arguments($_))[1] } calls($call, 'errdetail_plural');

		next if $level =~ /\?/ && "@{ $of[0] }" eq '';
		foreach my $sqlstate (@codes)
		{
			foreach my $message (@{ $of[0] }, @plurals)
			{
				next if $message =~ /, skipping$/;
				note_error($sqlstate, $message, [ @{ $of[1] }, @detail_plurals ], $of[2], "$file:$line");
			}
		}
	}
	return;
}

# Conditions are the names of PL/pgSQL, which are the macros' in small letters.
sub read_sql
{
	my ($file, $by_name) = @_;
	my $text = slurp($file) =~ s/--.*//gr;

	while ($text =~ /\bRAISE\s+(?:EXCEPTION\s+)?'((?:''|[^'])*)'([^;]*);/g)
	{
		my ($message, $rest) = ($1, $2);
		my $line = 1 + (substr($text, 0, $-[0]) =~ tr/\n//);
		my ($condition) = $rest =~ /ERRCODE\s*=\s*'(\w+)'/;
		my ($detail) = $rest =~ /DETAIL\s*=\s*'((?:''|[^'])*)'/;
		my ($hint) = $rest =~ /HINT\s*=\s*'((?:''|[^'])*)'/;
		my $sqlstate = !defined $condition ? 'P0001' :
		  $condition =~ /^[0-9A-Z]{5}$/ ? $condition :
		  $by_name->{ 'ERRCODE_' . uc $condition } // die "$file:$line: no SQLSTATE $condition\n";

		s/''/'/g foreach grep { defined } $message, $detail, $hint;
		note_error($sqlstate, $message =~ s/%/\x01/gr, [ grep { defined } $detail ],
			[ grep { defined } $hint ], "$file:$line");
	}
	return;
}

sub read_all
{
	my $by_name = sqlstates();

	foreach my $file (sort glob 'src/*.c')
	{
		my %macros;

		foreach my $source ($file, glob 'src/*.h')
		{
			my $text = slurp($source) =~ s/\\\n//gr;
			$macros{$1} = $2 while $text =~ /^#define (\w+)[ \t]+(".*")[ \t]*$/mg;
		}
		read_c($file, $by_name, \%macros);
	}
	read_sql($_, $by_name) foreach sort glob 'sql/parts/*.sql';
	return;
}

# ----- the list -----

# As a reader sees it: what is filled in is an ellipsis.
sub shown
{
	my ($text) = @_;

	$text =~ s/\n/ /g;
	$text =~ s/(?:\x01)+/…/g;
	$text =~ s/\|/\\|/g;
	return $text;
}

# Outside of code, Markdown would take some characters for its own.
sub prose
{
	my ($text) = shown(@_);

	$text =~ s/([<>*_`\[\]])/\\$1/g;
	return $text;
}

sub sentence_of_class
{
	my ($sqlstate, $n) = @_;
	my $class = $class{$sqlstate} // [ $condition{$sqlstate}, 'see the message' ];

	return ucfirst("$class->[$n].");
}

sub list
{
	my @rows = map
	{
		my $error = $errors{$_};
		my $cause = join ' ', map { prose($_) } @{ $error->{details} };
		my $cure = join ' ', map { prose($_) } @{ $error->{hints} };

		"| $error->{sqlstate} | `" . shown($error->{message}) . '` | '
		  . ($cause ne '' ? $cause : sentence_of_class($error->{sqlstate}, 0)) . ' | '
		  . ($cure ne '' ? $cure : sentence_of_class($error->{sqlstate}, 1)) . ' |'
	} sort keys %errors;

	return join "\n", $begin, '', '| SQLSTATE | message | cause | cure |', '|---|---|---|---|', @rows, '', $end, '';
}

# README.md in three: before the list, the list, behind it.
sub readme
{
	my $text = slurp('README.md');
	my ($before, $list, $behind) = $text =~ /\A(.*?)(\Q$begin\E.*?\Q$end\E\n)(.*)\z/s
	  or die "README.md lacks the marks \"$begin\" and \"$end\"\n";

	return ($before, $list, $behind);
}

# ----- tests -----

sub not_provoked
{
	my $outputs = join "\n", map { slurp($_) } glob 'expected/*.out expected/*/*.out';
	my $scripts = join "\n", map { slurp($_) } glob 'test/t/*.pl test/t/*.pm test/examples/*.mjs';
	my %excused;

	foreach (split /\n/, slurp('test/errors-not-provoked.txt'))
	{
		next if /^\s*(#|$)/;
		my ($message, $reason) = /^"(.*)"\s+(\S.*)$/ or die "errors-not-provoked.txt: $_\n";
		$excused{$message} = $reason;
	}
	$scripts =~ s/\\(.)/$1/g;
	my @missing;
	foreach my $key (sort keys %errors)
	{
		my $message = $errors{$key}{message};
		my $pattern = join '.*', map { quotemeta } split /\x01+/, $message, -1;
		my ($longest) = sort { length $b <=> length $a } split /\x01+/, $message;
		my $is_provoked = $outputs =~ /$pattern/
		  || (length($longest // '') >= 12 && index($scripts, $longest) >= 0);
		my $excuse = delete $excused{ shown($message) };

		push @missing, "no test provokes $key, reported in @{ $errors{$key}{places} }" =~ s/\x01/…/gr
		  if !$is_provoked && !defined $excuse;
		push @missing, 'test/errors-not-provoked.txt names "' . shown($message) . '", which a test provokes'
		  if $is_provoked && defined $excuse;
	}
	push @missing, "test/errors-not-provoked.txt names \"$_\", which is reported nowhere" foreach sort keys %excused;
	return @missing;
}

binmode STDOUT, ':raw';
read_all();
my ($before, $list, $behind) = readme();
my $made = list();
utf8::is_utf8($made) and utf8::encode($made);
if ($mode eq 'write')
{
	open my $out, '>', 'README.md' or die "could not write README.md: $!";
	print $out $before, $made, $behind;
	close $out;
}
elsif ($mode eq 'check')
{
	my @wrong = not_provoked();

	push @wrong, 'the list of errors in README.md is stale: run test/tools/errors.pl write' if $made ne $list;
	print "$_\n" foreach @wrong;
	exit 1 if @wrong;
}
else
{
	die "usage: errors.pl [check|write]\n";
}
