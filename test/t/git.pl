# git.pl: the files folded from events by test/examples/git.sh are git's own.
#
# Two repositories: one made here, with every kind of change and every awkward
# name; and this project's history, ES_GIT_REPO or the one around this file,
# where there is one.  Half of each history is imported in an older form of the
# events, which an upcaster leads to today's.
use strict;
use warnings;

use Cwd qw(abs_path);
use File::Basename qw(dirname);
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $tree = abs_path(dirname(__FILE__) . '/../..');
my $script = "$tree/test/examples/git.sh";

# The user's settings do not matter here, nor who owns a repository; those
# that could lead the script astray are set on purpose.
$ENV{GIT_CONFIG_NOSYSTEM} = 1;
$ENV{GIT_CONFIG_GLOBAL} = '/dev/null';
my %config = (
	'safe.directory' => '*',
	'color.ui' => 'always',
	'core.abbrev' => '7',
	'core.quotePath' => 'true',
	'diff.ignoreSubmodules' => 'all',
	'diff.renames' => 'copies',
	'log.diffMerges' => 'combined',
	'log.showRoot' => 'false');
my $n = 0;
while (my ($key, $value) = each %config)
{
	@ENV{ "GIT_CONFIG_KEY_$n", "GIT_CONFIG_VALUE_$n" } = ($key, $value);
	$ENV{GIT_CONFIG_COUNT} = ++$n;
}
delete @ENV{qw(GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE GIT_OBJECT_DIRECTORY)};

plan skip_all => 'git is not installed'
  unless eval { IPC::Run::run([ 'git', '--version' ], '>', \my $version) };

my $node = PostgreSQL::Test::Cluster->new('git');
$node->init(extra => [ '--encoding=UTF8', '--no-locale' ]);
$node->start;
$ENV{PGHOST} = $node->host;
$ENV{PGPORT} = $node->port;

sub run_ok
{
	my ($command, $input, $name) = @_;
	my ($out, $err) = ('', '');
	my $ok = IPC::Run::run($command, '<', \$input, '>', \$out, '2>', \$err);
	ok($ok, $name) or diag($err);
	return $out;
}

sub git_lines
{
	my ($repo, @arguments) = @_;
	my $out = '';
	IPC::Run::run([ 'git', '-C', $repo, @arguments ], '>', \$out)
	  or die "git @arguments failed";
	return split /\n/, $out;
}

# The commits at which the tree folded from events is not git's.
sub differing_commits
{
	my ($repo, @commits) = @_;
	my @differing;
	for my $commit (@commits)
	{
		my ($ours, $gits) = ('', '');
		IPC::Run::run([ 'bash', $script, $repo, 'tree', $commit ], '>', \$ours)
		  or $ours = 'failed';
		IPC::Run::run(
			[ 'git', '-C', $repo, 'ls-tree', '-r', '--full-tree', $commit ],
			'>', \$gits) or die "git ls-tree failed";
		next if $ours eq $gits;
		push @differing, $commit;
		diag("$commit\n--- git\n$gits+++ events\n$ours") if @differing == 1;
	}
	return @differing;
}

# Not more than $n of them, evenly spaced, first and last included.
sub sample
{
	my ($n, @all) = @_;
	return @all if @all <= $n;
	return map { $all[ $_ * $#all / ($n - 1) ] } 0 .. $n - 1;
}

# The events of files by the version that they are stored in.
sub stored_versions
{
	my ($database) = @_;
	return $node->safe_psql($database, q{
		SELECT string_agg(v || CASE WHEN o THEN ' object' ELSE ' oid' END, ', ' ORDER BY v)
			FROM (SELECT DISTINCT type_version, data ? 'object'
				FROM es_read_all(max_count => NULL, category => 'file', raw => true)
				WHERE event_type <> 'FileDeleted') AS s(v, o)});
}

# Import a repository into a database of its own and compare all along.
sub import_and_compare
{
	my ($repo, $database) = @_;
	$node->safe_psql('postgres', "CREATE DATABASE $database");
	local $ENV{PGDATABASE} = $database;

	my @commits = git_lines($repo, 'rev-list', '--first-parent', 'HEAD');
	my @sample = sample(50, @commits);
	{
		local $ENV{ES_GIT_VERSION} = 1;
		run_ok([ 'bash', $script, $repo, 'import', $commits[ @commits / 2 ] ],
			'', "$database: import the older half in the older form");
	}
	is(stored_versions($database), '1 object', "$database: which is the first version");
	run_ok([ 'bash', $script, $repo, 'import' ], '', "$database: import");
	is(stored_versions($database), '1 object, 2 oid', "$database: both versions are there");
	is_deeply([ differing_commits($repo, @sample) ],
		[], "$database: " . @sample . ' trees are git\'s, HEAD first');
	my $middle = $node->safe_psql($database, 'SELECT max(position) / 2 FROM es_event');
	$node->safe_psql($database, "CALL es_archive(before_position => $middle, segment_events => 500)");
	is($node->safe_psql($database, q{
			SELECT round(avg((position <= es_archived_position())::int), 1) FROM es_event_all}),
		'0.5', "$database: half of it is archived");
	is(stored_versions($database), '1 object, 2 oid', "$database: with both versions");
	is_deeply([ differing_commits($repo, @sample) ],
		[], "$database: the trees are the same");
	is($node->safe_psql($database,
			q{SELECT count(*) FROM es_read_all(0, NULL, ARRAY['CommitMade'], 'commit')}),
		scalar @commits, "$database: every commit has its event");
	is($node->safe_psql($database, q{
			SELECT count(*) FROM es_read_all(max_count => NULL)
				WHERE NOT metadata ?& '{commit,author,author_date}'}),
		'0', "$database: every event says in which commit, by whom and when");
	is($node->safe_psql($database,
			q{SELECT count(*) FROM es_check() WHERE status <> 'ok'}),
		'0', "$database: the store is sound");
	return;
}

# ----- a repository with everything that is awkward -----

my $long = 'long/' . join('/', ('d' x 250) x 5);
my @awkward = (
	'plain', 'with space', ' leading', 'trailing ', '-dash', '$dollar', '$',
	'percent%25', '%', '100%', 'semi;colon', q{quote'}, 'quote"', 'back\\slash',
	'\\N', '\\.', '\\', "tab\there", "new\nline", "cr\rhere", "bell\x07", "del\x7F",
	"esc\x1B[31m", "umlaut-\xC3\xA4", "\xE6\xBC\xA2\xE5\xAD\x97", "\xF0\x9F\x98\x80",
	"c1-\xC2\x85", "latin1-\xE4", "\xFF\xFE", "cut-\xE6\xBC", "overlong-\xC0\xAF",
	"surrogate-\xED\xA0\x80", "beyond-\xF4\x90\x80\x80", 'NULL', 'a', 'a.b', 'A',
	'a0', 'commit-1', 'file-file', 'dir/sub/deep', 'dir.txt', 'dir-x',
	"$long/one", "$long/two", "$long/\xE6\xBC\xA2", 'u/' . "\xC3\xA4" x 600);

my $mark = 0;

sub quoted
{
	return '"' . ($_[0] =~ s/([^\x20-\x21\x23-\x5B\x5D-\x7E])/sprintf '\\%03o', ord $1/ger) . '"';
}

sub data
{
	return 'data ' . length($_[0]) . "\n$_[0]\n";
}

sub put
{
	my ($path, $content, $mode) = @_;
	return sprintf("M %s inline %s\n", $mode // '100644', quoted($path)) . data($content);
}

sub put_submodule
{
	my ($path, $digit) = @_;
	return "M 160000 " . $digit x 40 . ' ' . quoted($path) . "\n";
}

sub drop
{
	return 'D ' . quoted($_[0]) . "\n";
}

# A commit in fast-import's language, on the parents given by their marks.
sub commit
{
	my ($branch, $message, $parents, @changes) = @_;
	my ($first, @others) = @$parents;
	$mark++;
	return
	    "commit refs/heads/$branch\nmark :$mark\n"
	  . "author M\xFCller \"Q\" \\ <m\@example.org> 1000000000 +0530\n"
	  . 'committer C <c@example.org> ' . (1_600_000_000 + $mark) . " +0000\n"
	  . data($message)
	  . (defined $first ? "from :$first\n" : '')
	  . join('', map { "merge :$_\n" } @others)
	  . join('', @changes) . "\n";
}

my $repo = PostgreSQL::Test::Utils::tempdir . '/repo';
my $stream = '';

# 1: all names at once
$stream .= commit('main', "every name\n\nand a body", [],
	map { put($_, "content of $_") } @awkward);
# 2: content, mode, kind: a link, a submodule, a file that turns a directory
$stream .= commit('main', "changes \xFF", [1],
	(map { put($_, "changed $_") } @awkward[ 0 .. 30 ]),
	put('a.b', "content of a.b", '100755'),
	put('A', 'plain', '120000'),
	put_submodule('a0', 'a'),
	drop('NULL'), put('NULL/inside', 'x'));
# 3: nothing
$stream .= commit('main', '', [2]);
# 4: renames, as git would guess them; deletions
$stream .= commit('main', 'renames', [3],
	drop("$long/one"), put("$long/three", "content of $long/one"),
	drop('dir/sub/deep'), put('moved/deep', 'content of dir/sub/deep'),
	drop("new\nline"), drop('percent%25'), drop('%'));
# 5: added again, and back from a directory to a file
$stream .= commit('main', 'again', [4],
	put("new\nline", 'again'), put('percent%25', 'content of percent%25', '100755'),
	drop('NULL/inside'), put('NULL', 'a file again'), put_submodule('a0', 'b'));
# 6, 7: a branch from the first commit
$stream .= commit('side', 'side', [1],
	put('plain', 'by side'), put('side only', 's'), drop('a'));
$stream .= commit('side', 'side again', [6], put('side only', 's2'), drop('A'));
# 8: merged, with a change that neither parent had
$stream .= commit('main', 'evil merge', [ 5, 7 ],
	put('plain', 'by both'), put('side only', 's2'), drop('a'), put('in no parent', 'm'));
# 9: merged, and nothing taken
$stream .= commit('side', 'more', [7], put('not taken', 'x'));
$stream .= commit('main', 'merge, ours', [ 8, 9 ]);
# 11-13: three lines at once, one of them without a common root
$stream .= commit('other', 'another root', [], put('other', 'o'), put('plain', 'o'));
$stream .= commit('third', 'third', [8], put('third', 't'));
$stream .= commit('main', 'octopus', [ 10, 11, 12 ], put('other', 'o'), put('third', 't'));
# 14, 15: all gone, and something new
$stream .= commit('main', 'nothing left', [13], "deleteall\n");
$stream .= commit('main', 'a new beginning', [14], put('plain', "content of plain"));

run_ok([ 'git', 'init', '-q', '--bare', $repo ], '', 'make a repository');
run_ok([ 'git', '-C', $repo, 'symbolic-ref', 'HEAD', 'refs/heads/main' ], '', 'on main');
run_ok([ 'git', '-C', $repo, 'fast-import', '--quiet' ], $stream, 'with an awkward history');

import_and_compare($repo, 'awkward');
is(scalar(git_lines($repo, 'rev-list', '--first-parent', 'HEAD')), 10, 'ten commits');
is($node->safe_psql('awkward', q{
		SELECT string_agg(event_type || ' ' || version, ', ' ORDER BY version)
			FROM es_read_stream('file-NULL')}),
	'FileAdded 1, FileDeleted 2, FileAdded 3, FileDeleted 4',
	'a stream tells its file\'s life');
is($node->safe_psql('awkward', q{
		SELECT metadata ->> 'author', metadata ->> 'author_date'
			FROM es_event_all WHERE position = 1}),
	"M\xEF\xBF\xBDller \"Q\" \\ <m\@example.org>|2001-09-09T07:16:40+05:30",
	'the author is there, as far as it is text');

# ----- importing again -----

$ENV{PGDATABASE} = 'awkward';
my $count = 'SELECT count(*), max(position) FROM es_event_all';
my $before = $node->safe_psql('awkward', $count);
run_ok([ 'bash', $script, $repo, 'import' ], '', 'import again');
is($node->safe_psql('awkward', $count), $before, 'finds nothing new');

run_ok([ 'git', '-C', $repo, 'fast-import', '--quiet' ],
	"reset refs/heads/main\nfrom refs/heads/main^0\n\n"
	  . "commit refs/heads/main\ncommitter C <c\@example.org> 1700000000 +0000\n"
	  . data('later') . put('later', 'l') . "\n",
	'a later commit');
run_ok([ 'bash', $script, $repo, 'import' ], '', 'import it');
is_deeply([ differing_commits($repo, 'HEAD', 'HEAD~1', 'HEAD~5') ],
	[], 'trees before and after are git\'s');

$node->command_fails_like([ 'bash', $script, $repo, 'import', 'side' ],
	qr/not in the line of first parents/, 'another line of history is refused');
$node->command_fails_like([ 'bash', $script, $repo, 'tree', 'side' ],
	qr/was not imported/, 'a commit that was not imported has no tree');

# What two imports at once come down to: the slower one is refused.
my ($head) = git_lines($repo, 'rev-parse', 'HEAD');
my (undef, undef, $err) = $node->psql('awkward', qq{
	INSERT INTO es_event (stream_id, version, event_type, data)
		VALUES ('commit-$head', 1, 'CommitMade', '{}')});
like($err, qr/is not at the expected version/, 'no commit can be imported twice');

# ----- this project's own history -----

my $own = $ENV{ES_GIT_REPO};
if (!defined $own)
{
	my $top = '';
	$own = $tree
	  if IPC::Run::run([ 'git', '-C', $tree, 'rev-parse', '--show-toplevel' ],
		'>', \$top, '2>', \my $ignored) && $top eq "$tree\n";
}
SKIP:
{
	skip 'this tree has no history', 1 unless defined $own;
	import_and_compare($own, 'project');
}

done_testing();
