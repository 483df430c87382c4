# What the files in work/ are written with.
#
# Each of them returns a list of pieces of work.  A piece is a hash:
#
#   title      what it is called in the tables
#   group      what --only calls it
#   contenders [ { store, sql | measure, key, label, db, seed, vars, unit }, … ], the baseline first
#              store    whose schema it runs in: stores/STORE.sql creates it, stores/STORE.seed.sql fills it
#              sql      the transaction, for pgbench; `client` of the piece goes before it
#              measure  instead of sql: sub (bench, contender, setting) that returns { rate, cpu, errors, … }
#              key      its name in `wants`; the store's when not given
#              vars     further pgbench variables
#              unit     events per transaction, when it is not the piece's
#   client     pgbench lines that work out what every contender needs: the client's own work, equal for all
#   wants      [ { is, of, than, least | most }, … ]: a ratio, of the median over rounds.
#              is: rate (events per second), cost (its inverse), cpu (server CPU per event), pace (its inverse: events per
#              second of an idle core), bytes (on disk per event)
#              of: a contender, eventstore when not given;  than: a contender, or peers: all the other stores, each
#   unit       events per transaction (1)
#   clients    numbers of clients to try (those of --clients)
#   sync       settings of synchronous_commit to try (both)
#   seed       [ { prefix, streams, events }, … ] that every store holds at the start (1,000 streams of 100 events)
#   reads      true when nothing is written, so that the next piece with the same seed may use the same tables
#   fills      'once' when the stores are not filled anew for every number of clients
#   rounds     a number of rounds of its own
#   asked      true when it is run only if its group is named, or BENCH_BIG is set
#   shows      the measure that the table shows: rate, or bytes
#
# pgbench variables that every script may use: n (0, to count up), base (a version above all that are there), own (the
# streams that a client has to itself), stride, type and data (an event), slice (a number that no other slice has).
package Bench::Work;

use strict;
use warnings;
use Exporter qw(import);
our @EXPORT = qw(payload text_array ACCOUNTS existing_stream);

use constant ACCOUNTS => { prefix => 'account-', streams => 1000, events => 100 };

# About 200 bytes of JSON, as an application would send it.
sub payload
{
	return '{"account": "ACC-0017", "amount": 250.75, "currency": "EUR", "reference": "invoice 2024-11-0042", '
	  . '"channel": "mobile", "by": {"user": "u-48151", "name": "Ada Lovelace"}, "balance_after": 1300.00, "ok": true}';
}

# $count copies of a text as the text form of an array.
sub text_array
{
	my ($text, $count) = @_;

	$text =~ s/(["\\])/\\$1/g;
	return '{' . join(',', ("\"$text\"") x $count) . '}';
}

# pgbench lines that pick one of the client's own streams: s is its number, v the first version of the $unit events to come.
sub existing_stream
{
	my ($unit) = @_;

	return <<"CLIENT";
\\set n :n + 1
\\set s 1000000 + :stride * (:client_id * :own + permute(:n % :own, :own))
\\set v :base + $unit * (:n / :own)
CLIENT
}

1;
