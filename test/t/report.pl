# es_report() in a browser: it renders on narrow and wide pages, by day and by
# night, tells what the database tells, and hostile names and payloads are text.
#
# The pages are put into frames of a test page, whose script looks at them and
# writes down what it sees; the browser then prints that page.
use strict;
use warnings;
use utf8;

use FindBin;
use lib $FindBin::RealBin;

use EsTest;
use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;

my ($browser) = grep { -x } map { ("$_/chromium", "$_/chromium-browser", "$_/google-chrome") } split /:/, $ENV{PATH};
plan skip_all => 'SKIPPED: no page was looked at, for there is no browser (package chromium)' unless $browser;

my $dbname = q(shop <b>'"&);
my $node = new_store('main');
my $dir = PostgreSQL::Test::Utils::tempdir_short();
my $json = JSON::PP->new->allow_nonref;

$node->safe_psql('postgres', 'CREATE DATABASE "shop <b>\'""&"');

sub query
{
	return $node->safe_psql($dbname, "SET TimeZone = 'UTC';\n$_[0]");
}

# What looks like markup, turns around, cannot be seen, or does not end.
my @hostile = (
	q(</script><script>document.title='pwned'</script>),
	q("><img src=x onerror="document.title='pwned'">),
	q('-alert`1`-'), q(<!--), q(]]>), q(<svg onload=document.title='pwned'>), q(&lt;b&gt; &amp; &#60;),
	q(javascript:document.title='pwned'), q(a), '%s%n', 'n' x 1024);

query(q(
	CREATE EXTENSION eventstore;
	SELECT es_create_aggregate('account', initial_state => '{"balance": 0, "owner": null}');
	SELECT es_evolve('account', 'Opened', $$ state || jsonb_build_object('owner', event.data -> 'owner') $$);
	SELECT es_evolve('account', 'Deposited', $$ jsonb_set(state, '{balance}', to_jsonb((state ->> 'balance')::numeric + (event.data ->> 'amount')::numeric)) $$);
	SELECT es_append('account-1', 'Opened', '{"owner": "Ada"}', metadata => '{"user": "x"}', tags => '{branch:1}');
	SELECT es_append('account-1', 'Deposited', jsonb_build_object('amount', n)) FROM generate_series(1, 30) n;
	SELECT es_append('account-' || n % 7, 'Withdrawn', '{}') FROM generate_series(1, 60) n;
	CREATE TABLE total (n int);
	SELECT es_create_projection('late', tables => '{total}');
	SELECT es_on('late', 'Deposited', 'SELECT 1');
	SELECT es_create_projection('stopped', tables => '{total}');
	SELECT es_on('stopped', 'Deposited', 'DO $x$ BEGIN RAISE ''</td><script>document.title="pwned"</script>''; END $x$');
	CALL es_run_projections();
	SELECT es_append('order-1', 'Placed', '{}')));
foreach my $name (@hostile)
{
	my $quoted = $name =~ s/'/''/gr;
	my $short = substr $quoted, 0, 255;
	query(qq(SELECT es_append('$quoted', '$short', jsonb_build_object('$short', '$quoted', 'u', E'\\x01\\u202e\\u200b'),
		metadata => jsonb_build_object('m', '$quoted'), tags => ARRAY['$short']);));
}
query(q(SELECT es_append(U&'bidi-\202Egnp.exe', 'T', '{"x": "\u202e\u0007"}');
	SELECT es_append('account-1', 'Noted', to_jsonb(repeat('<i>', 5000)));
	SELECT es_create_projection('<script>document.title=''pwned''</script>');
	SELECT count(es_append('long-1', 'Counted', jsonb_build_object('n', n))) FROM generate_series(1, 1000) n;));

my %pages = (
	store => query('SELECT es_report()'),
	stream => query(q(SELECT es_report('account-1'))),
	long => query(q(SELECT es_report('long-1'))),
	hostile => query(q(SELECT es_report($x$"><img src=x onerror="document.title='pwned'">$x$))),
	bidi => query(q(SELECT es_report(U&'bidi-\202Egnp.exe'))));

# ----- without a browser: nothing to fetch, nothing to run, nothing but ASCII

foreach my $name (sort keys %pages)
{
	my $page = $pages{$name};

	unlike($page, qr/[^\x00-\x7F]/, "$name: plain ASCII");
	unlike($page, qr/<(?:script|img|link|iframe|object|embed|base|form)\b/i, "$name: nothing that runs or fetches");
	unlike($page, qr/<[a-z][^>]*\s(?:src|href|on[a-z]+)\s*=|https?:|url\(|\@import/i, "$name: no address");
	cmp_ok(length $page, '<', 600_000, "$name: of bounded size");
}

# ----- with one

# Look at the pages, each at both widths and in both schemes.
my $looker = <<'EOS';
const seen = {errors: []};
addEventListener('securitypolicyviolation', e => seen.errors.push('policy: ' + e.blockedURI));
const text = (d, q) => [...d.querySelectorAll(q)].map(e => e.textContent);
const luminance = c => { const v = c.match(/[\d.]+/g).slice(0, 3).map(x => x / 255).map(x => x <= .04045 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4);
	return .2126 * v[0] + .7152 * v[1] + .0722 * v[2]; };
const contrast = (a, b) => { const [x, y] = [luminance(a), luminance(b)].sort((p, q) => q - p); return (x + .05) / (y + .05); };
async function look(name, page, width, scheme) {
	const frame = document.createElement('iframe');
	frame.style.cssText = `width:${width}px;height:900px;border:0;color-scheme:${scheme}`;
	document.body.append(frame);
	await new Promise(done => { frame.onload = done; frame.srcdoc = page; });
	const d = frame.contentDocument, w = frame.contentWindow, style = e => w.getComputedStyle(e);
	d.querySelectorAll('details').forEach(e => e.open = true);
	const card = style(d.querySelector('section')).backgroundColor;
	const small = [...d.querySelectorAll('h1,h2,h2+p,td,th,small,.tile span,.axis span,.ticks span,summary,pre,footer,time,.hint')].filter(e => e.offsetParent);
	const r = { title: d.title, overflow: d.documentElement.scrollWidth - width, card,
		dark: luminance(card) < .2,
		smallest: Math.min(...small.map(e => parseFloat(style(e).fontSize))),
		contrast: Math.min(...small.map(e => contrast(style(e).color, card))),
		columns: d.querySelectorAll('.plot rect:not(.hit)').length,
		svgs: [...d.querySelectorAll('.plot svg')].map(e => e.getBoundingClientRect().width),
		live: d.querySelectorAll('script,img,iframe,object,embed,link[href],base,form').length
			+ [...d.querySelectorAll('*')].filter(e => [...e.attributes].some(a => /^on|^(src|href|srcdoc|formaction|action)$/.test(a.name))).length };
	if (width == 1400 && scheme == 'light') Object.assign(r, {
		h1: d.querySelector('h1 bdi').textContent,
		tiles: Object.fromEntries([...d.querySelectorAll('.tile')].map(e => [e.id, Number(e.dataset.value)])),
		types: [...d.querySelectorAll('#types tr')].map(e => [e.querySelector('bdi').textContent, Number(e.querySelector('[data-value]').dataset.value)]),
		largest: [...d.querySelectorAll('#largest tbody tr')].map(e => [e.querySelector('bdi').textContent, Number(e.querySelector('[data-value]').dataset.value)]),
		busiest: [...d.querySelectorAll('#busiest tbody tr')].map(e => [e.querySelector('bdi').textContent, Number(e.querySelector('[data-value]').dataset.value)]),
		projections: [...d.querySelectorAll('#projections tbody tr')].map(e => [e.querySelector('bdi').textContent, e.querySelector('.chip bdi').textContent, Number(e.querySelector('[data-value]').dataset.value)]),
		figures: [...d.querySelectorAll('.figures')].map(t => [...t.querySelectorAll('tbody tr')].map(e => Number(e.lastElementChild.dataset.value))),
		ill: text(d, '#ill th'), well: text(d, '#well th'), skipped: text(d, '.skipped'), marks: text(d, 'mark').length,
		events: [...d.querySelectorAll('ol.events>li:not(.skipped)')].map(e => [e.id, e.querySelector('h3 bdi').textContent,
			e.querySelector('pre.data').textContent, e.querySelector('pre.state')?.textContent ?? null]) });
	frame.remove();
	return r;
}
(async () => {
	for (const name in pages) for (const scheme of ['light', 'dark']) for (const width of [380, 1400])
		seen[`${name} ${scheme} ${width}`] = await look(name, pages[name], width, scheme);
	seen.title = document.title;
	const bytes = new TextEncoder().encode(JSON.stringify(seen));
	document.body.innerHTML = '<pre id=seen>' + [...bytes].map(b => b.toString(16).padStart(2, '0')).join('') + '</pre>';
})();
EOS

my $data = $json->ascii->encode(\%pages) =~ s/</\\u003c/gr;
append_to_file("$dir/looker.html", "<!DOCTYPE html><meta charset=utf-8><title>looker</title><body><script>const pages = $data;\n$looker</script>");
my @options = ('--headless', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--disable-crash-reporter',
	"--user-data-dir=$dir/profile", '--enable-logging=stderr', '--log-level=0');
local $ENV{HOME} = $dir;
my ($out, $err) = ('', '');
my $ok = IPC::Run::run([ $browser, @options, '--window-size=1500,1000', '--virtual-time-budget=60000', '--dump-dom', "file://$dir/looker.html" ],
	'<', \undef, '>', \$out, '2>', \$err, IPC::Run::timeout(240));
my ($hex) = $out =~ /<pre id="seen">([0-9a-f]+)/;
ok($hex, 'the browser shows the pages') or diag(substr($err, -3000) . substr($out, 0, 500));
BAIL_OUT('no answer from the browser') unless $hex;
my $seen = $json->utf8->decode(pack 'H*', $hex);
is(join("\n", grep { /CONSOLE/ } split /\n/, $err), '', 'no console message');
is_deeply($seen->{errors}, [], 'no violation of the policy');
is($seen->{title}, 'looker', 'nothing has run');

foreach my $key (grep { / / } sort keys %$seen)
{
	my $look = $seen->{$key};

	is($look->{live}, 0, "$key: nothing in it that runs or fetches");
	like($look->{title}, qr/ · eventstore\z/, "$key: its title is its own");
	cmp_ok($look->{overflow}, '<=', 0, "$key: fits its width");
	cmp_ok($look->{smallest}, '>=', 12, "$key: no text below 12 px");
	cmp_ok($look->{contrast}, '>=', 4.5, "$key: text stands out from its ground");
	is(!!$look->{dark}, $key =~ / dark /, "$key: in the scheme asked for");
}

# The numbers are the database's.
my $look = $seen->{'store light 1400'};
is($look->{h1}, $dbname, 'the database is named as it is');
is($look->{title}, "$dbname · eventstore", 'in the title, too');
is($look->{tiles}{events}, query('SELECT count(*) FROM es_event'), 'events');
is($look->{tiles}{streams}, query('SELECT count(DISTINCT stream_id) FROM es_event'), 'streams');
is($look->{tiles}{bytes}, query('SELECT table_bytes + index_bytes + archive_bytes FROM es_stat_store'), 'bytes');
cmp_ok($look->{tiles}{rate}, '>', 0, 'events per second');
is($look->{tiles}{health}, query(q(SELECT count(*) FROM es_check() WHERE status <> 'ok')), 'findings');
is_deeply($look->{ill}, [ 'projections' ], 'the finding is shown, the stopped projection');
is(scalar @{ $look->{well} }, query(q(SELECT count(*) FROM es_check() WHERE status = 'ok')), 'and what is well');
is_deeply($look->{largest}, decode('SELECT json_agg(json_build_array(stream_id, events)) FROM (SELECT stream_id, count(*) AS events FROM es_event
	GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 10) x', 120), 'largest streams');
is_deeply($look->{busiest}, $look->{largest}, 'busiest streams, as all are recent');
is_deeply($look->{types}, decode('SELECT json_agg(json_build_array(event_type, n)) FROM (SELECT event_type, count(*) AS n FROM es_event
	GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 12) x', 255), 'event types');
is_deeply([ map { eval { my $sum = 0; $sum += $_ foreach @$_; $sum } } @{ $look->{figures} } ],
	[ ($look->{tiles}{events}) x 2 ], 'the columns of both charts add up to all events');
is_deeply([ sort { $a->[0] cmp $b->[0] } @{ $look->{projections} } ], decode(q(SELECT json_agg(json_build_array(name, status, lag_events) ORDER BY name COLLATE "C") FROM es_stat_projection), 120),
	'projections');
cmp_ok($look->{columns}, '>', 2, 'columns are drawn');
cmp_ok($_, '>', 300, 'at a size to be seen') foreach @{ $look->{svgs} };

# The timeline: every event, its data, and the state after it.
$look = $seen->{'stream light 1400'};
is($look->{h1}, 'account-1', 'the stream is named');
is($look->{tiles}{version}, query(q(SELECT es_stream_version('account-1'))), 'its version');
my $history = decode(q(SELECT json_agg(json_build_array('v' || version, event_type, data, state)) FROM es_history('account-1')));
is(scalar @{ $look->{events} }, scalar @$history, 'each event is there');
like($look->{events}[-1][2], qr/^"(?:<i>)+.*… 15002 bytes$/s, 'data without end is cut off, and says so');
foreach my $event (@{ $look->{events} }[ 0 .. $#$history - 1 ])
{
	my $wanted = shift @$history;
	my $shown = [ @$event[ 0, 1 ], map { $json->decode($_) } @$event[ 2, 3 ] ];
	is_deeply($shown, $wanted, "event $event->[0]: data and state are those of es_history()") or last;
}
cmp_ok($look->{marks}, '>=', 30, 'what changed is marked');
is(eval { my $sum = 0; $sum += $_ foreach @{ $look->{figures}[0] }; $sum }, $look->{tiles}{version}, 'its columns add up to its events');

$look = $seen->{'long light 1400'};
is_deeply([ map { $_->[0] } @{ $look->{events} } ], [ map { "v$_" } 1 .. 50, 851 .. 1000 ], 'both ends of a long stream');
is_deeply($look->{skipped}, [ '800 events, versions 51 to 850, are not shown' ], 'and what is left out between them');
is($seen->{'hostile light 1400'}{h1}, $hostile[1], 'a hostile name is text');
is($json->decode($seen->{'hostile light 1400'}{events}[0][2] =~ s/"u".*$/"u":0}/sr)->{ $hostile[1] }, $hostile[1], 'so is a payload')
  if $seen->{'hostile light 1400'}{events}[0][2] =~ /"u"[^,]*\}$/s;
is($seen->{'bidi light 1400'}{h1}, 'bidi-U+202Egnp.exe', 'what turns the direction of writing is shown by its number');

$node->stop;
done_testing();

# JSON of a query; names longer than max are as the page has them.
sub decode
{
	my ($query, $max) = @_;
	my $value = $json->utf8->decode(query($query));

	foreach my $row (grep { defined $max } @$value)
	{
		$row->[0] = substr($row->[0], 0, $max) . "… " . length($row->[0]) . ' bytes'
		  if length $row->[0] > $max;
	}
	return $value;
}
