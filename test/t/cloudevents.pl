# What the output plugin sends, and what es_from_cloudevent takes, by the
# judgement of npm cloudevents, the SDK of those who wrote CloudEvents.
# Skipped, and said so, where there is no node or npm cannot reach its registry.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EsTest;
use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;

my $dir = PostgreSQL::Test::Utils::tempdir;

plan skip_all => 'node 18 or later is not here'
  unless (qx(node --version 2>&1) =~ /^v(\d+)/ && $1 >= 18);
append_to_file("$dir/package.json", '{"private": true, "type": "module"}');
my $npm = qx(cd '$dir' && npm install --no-audit --no-fund --no-package-lock --fetch-timeout=20000 --fetch-retries=1 cloudevents\@10.0.0 2>&1);
plan skip_all => 'npm cannot install cloudevents: ' . ($npm =~ s/\n.*//sr)
  unless $? == 0;

# Judge each line of a file; print what the SDK made of the event, or why it is none.
append_to_file("$dir/judge.mjs", <<'JS');
import { readFileSync } from "node:fs";
import { HTTP } from "cloudevents";
for (const body of readFileSync(process.argv[2], "utf8").split("\n").filter(Boolean)) {
  try {
    const event = HTTP.toEvent({ headers: { "content-type": "application/cloudevents+json" }, body });
    event.validate();
    console.log(JSON.stringify({ event: JSON.parse(JSON.stringify(event)), time: new Date(event.time).toISOString() }));
  } catch (error) {
    console.log(JSON.stringify({ error: String(error.message) }));
  }
}
JS
# Events as applications make them with the SDK, in the structured form.
append_to_file("$dir/make.mjs", <<'JS');
import { CloudEvent, HTTP } from "cloudevents";
const events = [
  { source: "/orders", type: "com.example.placed", subject: "order-7", data: { total: 12.5 } },
  { source: "https://other.example/x?y=1", type: "T", id: "17", data: [1, null], traceparent: "00-1", count: 5, flag: true },
  { source: "urn:b", type: "Binary", id: "b-1", subject: "s-1", datacontenttype: "application/octet-stream", data: new Uint8Array([0, 255, 16]) },
  { source: "urn:t", type: "Text", id: "t-1", subject: "s-1", datacontenttype: "text/plain", data: "plain \"text\" ü" },
  { source: "urn:n", type: "None", id: "n-1", subject: "s-1", time: "2026-01-31T12:00:00.123Z" },
];
for (const event of events) console.log(HTTP.structured(new CloudEvent(event)).body);
JS

# A value's one text, to compare by.
sub text { return JSON::PP->new->canonical->allow_nonref->encode($_[0]) }

sub judge
{
	my (@lines) = @_;
	my $file = "$dir/lines";

	unlink $file;
	append_to_file($file, join '', map { "$_\n" } @lines);
	return map { decode_json($_) } split /\n/, qx(cd '$dir' && node judge.mjs lines 2>&1);
}

my $node = new_store('main', undef, allows_streaming => 'logical');

sub sql { return $node->safe_psql('postgres', $_[0]) }

sql(q(SELECT pg_create_logical_replication_slot('s', 'eventstore')));
sql(q(
	SELECT es_append('order-' || i, 'Placed', jsonb_build_object('n', i, 'text', E'line\nbreak " \\ ü €')) FROM generate_series(1, 50) i;
	SELECT es_append('order-1', 'Tagged', '[]', tags => '{a:1,b:2}', metadata => '{"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "correlation_id": "c", "causation_id": "d", "user": "u"}');
	SELECT es_append('order-1', 'Odd', '"x"', metadata => '{"a": null, "b": 1.5, "c": 99999999999, "d": {"e": []}, "F": "g", "h_i": "j", "k": "line\nbreak", "id": 1, "source": [], "time": "never",
		"traceparent": 7, "dataschema": "no uri", "datacontenttype": "", "specversion": "9", "cloudevent": {"id": "", "source": ""}, "data": 1, "data_base64": true, "": "e", "sequence": 3}');
	SELECT es_append('order-1', 'Schema', '1', metadata => '{"dataschema": "https://x.example/s.json", "partitionkey": "p", "n": -2147483648, "m": 2147483647, "t": true}');
	SELECT es_append('order-1', 'Foreign', '1', metadata => '{"cloudevent": {"id": "A 1", "source": "/other"}}');
	SELECT es_append('order-1', 'Bytes', '"AP8Q"', metadata => '{"datacontenttype": "image/png", "data_base64": true}');
	SELECT es_append('Größe-1', 'Geändert', '{"ü": "€"}');));
my @lines = split /\n/, sql(q(SELECT data FROM pg_logical_slot_get_changes('s', NULL, NULL)));
my @judged = judge(@lines);
is(scalar @judged, 56, 'there are lines to judge');
is(join("\n", map { $_->{error} // () } @judged), '', 'the SDK takes each of them');
my @sent = map { decode_json($_) } @lines;
is( scalar(grep { my ($sent, $event) = ($sent[$_], $judged[$_]{event});
		grep { text($sent->{$_}) ne text($event->{$_}) } grep { !/^(time|data|data_base64)$/ } keys %$sent } 0 .. $#sent),
	0, 'and reads the attributes that were sent');
is( scalar(grep { text($sent[$_]{data}) ne text($judged[$_]{event}{data}) } grep { exists $sent[$_]{data} } 0 .. $#sent),
	0, 'and the data');
is($judged[54]{event}{data_base64}, 'AP8Q', 'bytes among them');

# The judge can say no.
my %bad = (
	'no source' => sub { delete $_[0]{source} },
	'an upper-case name' => sub { $_[0]{Name} = 'x' },
	'an empty type' => sub { $_[0]{type} = '' });
foreach my $what (sort keys %bad)
{
	my $event = decode_json($lines[0]);

	$bad{$what}->($event);
	ok((judge(encode_json($event)))[0]{error}, "a line with $what would not pass");
}

# The other way: events made with the SDK are stored, and leave as they came.
my @made = split /\n/, qx(cd '$dir' && node make.mjs 2>&1);
foreach my $made (@made)
{
	my $event = decode_json($made);
	(my $quoted = $made) =~ s/'/''/g;

	sql(qq(INSERT INTO es_event (stream_id, event_type, data, metadata, event_id)
		SELECT coalesce(stream_id, 'inbox-1'), event_type, data, metadata, event_id FROM es_from_cloudevent('$quoted')));
	my ($back) = judge(sql(q(SELECT data FROM pg_logical_slot_get_changes('s', NULL, NULL))));
	my @differ = grep { text($event->{$_}) ne text($back->{event}{$_}) } grep { $_ ne 'time' } keys %$event;
	is("@differ", '', "$event->{type} $event->{id} leaves as it came") or diag "$made\n" . encode_json($back);
}

$node->stop;
done_testing();
