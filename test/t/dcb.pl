# The decision models of npm @dcb-es/event-store, whose EventStore interface
# test/examples/dcb-store.mjs gives over SQL.  Skipped, and said so, where
# there is no node or npm cannot reach its registry.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EsTest;
use File::Copy;
use PostgreSQL::Test::Utils;
use Test::More;

my $dir = PostgreSQL::Test::Utils::tempdir;

plan skip_all => 'node 18 or later is not here'
  unless (qx(node --version 2>&1) =~ /^v(\d+)/ && $1 >= 18);
copy($_, $dir) foreach glob "$FindBin::RealBin/../examples/dcb-store*.mjs";
append_to_file("$dir/package.json", '{"private": true, "type": "module"}');
my $npm = qx(cd '$dir' && npm install --no-audit --no-fund --no-package-lock --fetch-timeout=20000 --fetch-retries=1 \@dcb-es/event-store\@7.0.1 pg\@8 2>&1);
plan skip_all => 'npm cannot install @dcb-es/event-store and pg: ' . ($npm =~ s/\n.*//sr)
  unless $? == 0;

my $node = new_store('main');
local %ENV = (%ENV, PGHOST => $node->host, PGPORT => $node->port, PGDATABASE => 'postgres',
	PGUSER => $node->safe_psql('postgres', 'SELECT current_user'));
my $out = qx(cd '$dir' && node dcb-store.test.mjs 2>&1);
my $status = $?;

foreach my $line (grep { /^(not )?ok/ } split /\n/, $out)
{
	my ($not, $name) = $line =~ /^(not )?ok \d+ - (.*)/;

	ok(!$not, $name);
}
is($status, 0, 'the script came to its end') or diag $out;
store_is_sound($node, 'store');
$node->stop;
done_testing();
