#!/usr/bin/env bash
#
# git.sh: a git repository's history as events, and its file list back again.
#
#	git.sh REPO import [REF]	append what REF (HEAD) has and the store has not
#	git.sh REPO tree [COMMIT]	print the files as of COMMIT (HEAD) from events
#								alone, as "git ls-tree -r --full-tree" would
#	git.sh REPO					import, then compare the tree with git's
#
# The database is the one that psql finds by PGDATABASE and its kin; it should
# be UTF-8.  The extension is created if it is not there.
#
# Every file is a stream, file-PATH, and every change of it an event:
# FileAdded, FileModified (the content, the mode or the kind) or FileDeleted.
# The first two say what the file is now: its mode and the id of its object,
# "oid".  That was called "object" in version 1 of these types; stores from
# then need no change, an upcaster shows their events in today's form.  With
# ES_GIT_VERSION=1 events are still written as they were then.
#
# A rename is a deletion and an addition: git stores no renames, it guesses
# them.
#
# Every commit is a stream as well, commit-ID, with the one event
# CommitMade behind those of its files, so that a commit that changed nothing
# has its place too.  The metadata of each event names commit, author and
# author date.
#
# The history is the line of first parents, each merge seen as what it changed
# in the branch that it was merged into.  So the events up to a CommitMade,
# folded, are exactly the tree of that commit.
#
# Git's paths are bytes, stream ids are up to 1,024 bytes of text that can be
# printed.  So "%", control characters and what is no UTF-8 become %XX; where
# the result is too long for a stream id, a digest of the path stands for its
# end.  The event's data always has the whole path, with the same %XX.
set -euo pipefail

sql()
{
	psql -X -q -A -t -v ON_ERROR_STOP=1 "$@"
}

repo_git()
{
	# --no-replace-objects: the history as it was made
	git -C "$repo" --no-replace-objects "$@"
}

fail()
{
	echo "git.sh: $*" >&2
	exit 1
}

commit_id()
{
	repo_git rev-parse --verify --quiet --end-of-options "$1^{commit}" ||
		fail "there is no commit $1 in $repo"
}

# The commit that was imported last, or nothing.
last_imported()
{
	sql <<'SQL'
SELECT data ->> 'commit'
	FROM es_read('{"items": [{"types": ["CommitMade"]}]}', max_count => 1, backwards => true);
SQL
}

# The second version of the types with the renamed key, and the way from the
# first one to it.
declare_types()
{
	sql <<'SQL' >/dev/null
SELECT es_create_event_type(type, version, if_not_exists => true)
	FROM unnest('{FileAdded,FileModified}'::text[]) AS type, generate_series(1, 2) AS version;
SELECT es_upcast(type, 1, $$event.data - 'object' || jsonb_build_object('oid', event.data -> 'object')$$)
	FROM unnest('{FileAdded,FileModified}'::text[]) AS type;
SQL
}

# history RANGE: the commits and their changes, oldest first.  What could be
# configured otherwise is said here.
history()
{
	repo_git log --raw --reverse -z --first-parent --diff-merges=first-parent \
		--root --no-renames --no-abbrev --ignore-submodules=none --no-relative \
		--no-show-signature --no-notes --no-color --no-ext-diff --encoding=UTF-8 \
		--format='%H%x00%an <%ae>%x00%aI%x00%s' "$1" --
}

# From history's output to rows for COPY: stream_id, version, event_type,
# type_version, data, metadata.
#
# The version of a file's event is left to the store.  That of CommitMade is
# said to be 1: where another import was quicker, the store refuses the commit,
# and with it the whole COPY.  The version of a type is left to the store, too,
# unless an older one is asked for.
rows()
{
	ES_GIT_VERSION=${ES_GIT_VERSION:-} \
	perl -MDigest::SHA=sha256_hex -we '
		use strict;

		my $multibyte = qr/ [\xC2-\xDF][\x80-\xBF]
			| \xE0[\xA0-\xBF][\x80-\xBF] | \xED[\x80-\x9F][\x80-\xBF]
			| [\xE1-\xEC\xEE\xEF][\x80-\xBF]{2}
			| \xF0[\x90-\xBF][\x80-\xBF]{2} | \xF4[\x80-\x8F][\x80-\xBF]{2}
			| [\xF1-\xF3][\x80-\xBF]{3} /x;
		my $printable = qr/ [\x20-\x24\x26-\x7E] | (?!\xC2[\x80-\x9F]) $multibyte /x;
		my $old = $ENV{ES_GIT_VERSION} eq "1";
		my %type = (A => "FileAdded", M => "FileModified", T => "FileModified",
			D => "FileDeleted");

		sub escape
		{
			return $_[0] =~ s/((?:$printable)+)|(.)/defined $1 ? $1 : sprintf "%%%02X", ord $2/gser;
		}

		# "%%" is in no escaped path, so no other file has this id.
		sub stream_id
		{
			my ($path, $escaped) = @_;
			my $id = "file-$escaped";
			return $id if length $id <= 1024;
			$id = substr($id, 0, 900) =~ s/[\xC0-\xFF][\x80-\xBF]*\z//r;
			return "$id%%" . sha256_hex($path);
		}

		# A JSON object; what is no UTF-8 becomes U+FFFD.
		sub json
		{
			my @pairs;
			while (my ($key, $text) = splice @_, 0, 2)
			{
				$text =~ s/((?:[\x00-\x7F]|$multibyte)+)|./defined $1 ? $1 : "\xEF\xBF\xBD"/gse;
				$text =~ s/(["\\])/\\$1/g;
				$text =~ s/([\x00-\x1F])/sprintf "\\u%04x", ord $1/ge;
				push @pairs, "\"$key\": \"$text\"";
			}
			return "{" . join(", ", @pairs) . "}";
		}

		sub row
		{
			print join("\t", map { s/\\/\\\\/gr } @_), "\n";
		}

		my ($commit, $subject, $metadata);
		sub end_commit
		{
			row("commit-$commit", 1, "CommitMade", "",
				json(commit => $commit, subject => $subject), $metadata) if defined $commit;
		}

		$/ = "\0";
		while (defined(my $field = <STDIN>))
		{
			chomp $field;
			if ($field =~ /^\n?:(\d+) (\d+) (\w+) (\w+) (\w)/)
			{
				my ($mode, $object, $status) = ($2, $4, $5);
				chomp(my $path = <STDIN>);
				my $escaped = escape($path);
				my @state = $status eq "D" ? () : (mode => $mode, ($old ? "object" : "oid") => $object);
				row(stream_id($path, $escaped), "",
					$type{$status} // die("unknown change \"$status\" of $escaped\n"),
					$old && @state ? 1 : "",
					json(path => $escaped, @state), $metadata);
				next;
			}
			end_commit();
			$commit = $field;
			chomp(my ($author, $date) = (scalar <STDIN>, scalar <STDIN>));
			chomp($subject = <STDIN>);
			$metadata = json(commit => $commit, author => $author, author_date => $date);
		}
		end_commit();'
}

import()
{
	local head last

	head=$(commit_id "$1")
	PGOPTIONS="${PGOPTIONS:-} -c client_min_messages=warning" \
		sql -c 'CREATE EXTENSION IF NOT EXISTS eventstore'
	PGOPTIONS="${PGOPTIONS:-} -c client_min_messages=warning" declare_types
	last=$(last_imported)
	if [[ -n $last ]] && ! repo_git rev-list --first-parent "$head" | grep -x "$last" >/dev/null; then
		fail "the last commit imported, $last, is not in the line of first parents of $1"
	fi
	{
		echo 'BEGIN;'
		echo "COPY es_event (stream_id, version, event_type, type_version, data, metadata) FROM STDIN WITH (NULL '');"
		history "${last:+$last..}$head" | rows
		printf '%s\n' '\.' 'COMMIT;'
	} | PGCLIENTENCODING=UTF8 sql
}

# The fold: of each file's events up to the commit, in today's form, the latest
# one tells.  Prints mode, object id and escaped path.
files_as_of()
{
	PGCLIENTENCODING=UTF8 sql -F $'\t' -v commit="$1" <<'SQL'
SELECT data ->> 'mode', data ->> 'oid', data ->> 'path'
	FROM (SELECT DISTINCT ON (stream_id) event_type, data
			FROM es_read_all(max_count => NULL, category => 'file')
			WHERE position < (SELECT position FROM es_read_stream('commit-' || :'commit'))
			ORDER BY stream_id, version DESC) AS latest
	WHERE event_type <> 'FileDeleted';
SQL
}

# From files_as_of's output to that of git ls-tree: in the order of the bytes,
# the kind of object told by its mode, unusual paths in quotes.
ls_tree()
{
	perl -we '
		use strict;

		my %name = ("\a" => "a", "\b" => "b", "\t" => "t", "\n" => "n", "\x0B" => "v",
			"\f" => "f", "\r" => "r", "\"" => "\"", "\\" => "\\");
		my $unusual = qr/[\x00-\x1F"\\\x7F-\xFF]/;

		sub quote
		{
			my ($path) = @_;
			my $n = $path =~ s/($unusual)/"\\" . ($name{$1} \/\/ sprintf "%03o", ord $1)/ge;
			return $n ? "\"$path\"" : $path;
		}

		my %files;
		while (<STDIN>)
		{
			chomp;
			my ($mode, $object, $path) = split /\t/;
			$path =~ s/%(..)/chr hex $1/ge;
			my $kind = $mode eq "160000" ? "commit" : "blob";
			$files{$path} = "$mode $kind $object";
		}
		print "$files{$_}\t", quote($_), "\n" for sort keys %files;'
}

tree()
{
	local commit

	commit=$(commit_id "$1")
	[[ $(sql -v commit="$commit" <<<"SELECT es_stream_version('commit-' || :'commit')") == 1 ]] ||
		fail "commit $commit was not imported"
	files_as_of "$commit" | ls_tree
}

# One line that says what was imported, and that the fold is git's own tree.
compare()
{
	local events files

	events=$(sql -c 'SELECT count(*) FROM es_read_all(max_count => NULL)')
	diff <(repo_git -c core.quotePath=true ls-tree -r --full-tree HEAD) <(tree HEAD) ||
		fail "the files folded from $events events are not those of HEAD"
	files=$(tree HEAD | wc -l)
	echo "$events events fold into the $files files that git has at HEAD"
}

usage()
{
	echo "usage: git.sh REPO [import [REF] | tree [COMMIT]]" >&2
	exit 2
}

repo=${1:-}
[[ -n $repo && $# -le 3 ]] || usage
case ${2:-} in
	import) import "${3:-HEAD}" ;;
	tree) tree "${3:-HEAD}" ;;
	"")
		import HEAD
		compare
		;;
	*) usage ;;
esac
