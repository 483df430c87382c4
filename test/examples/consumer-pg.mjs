// consumer-pg.mjs SUBSCRIPTION CONSUMER [LEASE]: a consumer whose effects are in the same database, exactly once.
//
//   SELECT es_create_subscription('activity');
//   CREATE TABLE activity (stream_id text PRIMARY KEY, events bigint NOT NULL, last_version bigint NOT NULL);
//
// es_ack is part of the transaction that has the effects: both are there, or neither.  An event that cannot be dealt with is
// put aside with es_nack, and so are the later ones of its stream; it comes again after a while, and is parked for a human in
// the end (max_attempts).  Connects by the PG* variables.
import { setTimeout as sleep } from "node:timers/promises";
import pg from "pg";

const [subscription, consumer, lease = "30 s"] = process.argv.slice(2);
let running = true;

// What is done with an event: here, it is counted.
async function handle(client, event) {
  if (event.data?.poison) throw new Error("poisoned");
  await client.query(
    `INSERT INTO activity VALUES ($1, 1, $2)
     ON CONFLICT (stream_id) DO UPDATE SET events = activity.events + 1, last_version = excluded.last_version`,
    [event.stream_id, event.version]
  );
}

async function handleAll(client, events) {
  const aside = new Set(); // positions that es_nack took out of this delivery

  await client.query("BEGIN");
  for (const event of events) {
    if (aside.has(event.position)) continue;
    await client.query("SAVEPOINT event");
    try {
      await handle(client, event);
      await client.query("RELEASE SAVEPOINT event");
    } catch (error) {
      await client.query("ROLLBACK TO SAVEPOINT event");
      const { rows } = await client.query("SELECT es_nack($1, $2, $3, 'retry', $4) AS aside", [subscription, event.token, event.position, error.message]);
      for (const position of rows[0].aside) aside.add(position);
    }
  }
  await client.query("SELECT es_ack($1, $2)", [subscription, events[0].token]);
  await client.query("COMMIT");
  console.log(`${consumer}: ${events.length - aside.size} events, ${aside.size} put aside`);
}

async function run() {
  const client = new pg.Client();

  client.on("error", () => {}); // the next query fails with it
  try {
    await client.connect();
    while (running) {
      const { rows } = await client.query("SELECT * FROM es_fetch($1, $2, 100, $3)", [subscription, consumer, lease]);
      if (rows.length > 0) await handleAll(client, rows);
      else await client.query("SELECT es_wait_for_events($1, '5 s', $2)", [subscription, consumer]);
    }
  } finally {
    await client.end().catch(() => {});
  }
}

for (const name of ["SIGINT", "SIGTERM"]) process.on(name, () => (running = false));
while (running) {
  try {
    await run();
  } catch (error) {
    // A lost connection, a lease that ended (55006), a deadlock: nothing has happened, so begin again.  Not for a mistake.
    if (/^(0A|22|28|3D|42)[0-9A-Z]{3}$/.test(error.code)) throw error;
    console.error(`${consumer}: ${error.code ?? ""} ${error.message}`);
    await sleep(200);
  }
}
