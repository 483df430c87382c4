// subscriber.mjs: the loop of a consumer outside the database, with npm pg.
//
//   await subscribe(pool, { subscription: "mail", consumer: "mail-1" }, async events => { … });
//
// Each event reaches some consumer of the subscription at least once, and those of one stream in their order, however many
// consumers share the work.  After a crash the events that were not acknowledged come again: deal with one whose event_id (or
// position) was there before as with one that has been dealt with.  consumer-redis.mjs and consumer-nats.mjs show how, and
// consumer-pg.mjs what is possible where the effect is in the same database.
import { setTimeout as sleep } from "node:timers/promises";

// A mistake in the call, or no right to make it: trying again would not help.
const isMistake = error => /^(0A|22|28|3D|42)[0-9A-Z]{3}$/.test(error.code);

export async function subscribe(pool, { subscription, consumer, maxCount = 100, lease = "30 s", signal }, handle) {
  let token = null; // of events that were handled; they are acknowledged with the next fetch

  pool.on("error", () => {}); // of an idle connection: the next query will notice
  while (!signal?.aborted) {
    try {
      const { rows } = await pool.query("SELECT * FROM es_fetch($1, $2, $3, $4, $5)", [subscription, consumer, maxCount, lease, token]);
      token = null;
      if (rows.length > 0) {
        await handle(rows);
        token = rows[0].token;
      } else await pool.query("SELECT es_wait_for_events($1, '5 s', $2)", [subscription, consumer]);
    } catch (error) {
      // A lost connection, a handler that failed, a lease that ended meanwhile (55006): what was not acknowledged comes again.
      if (isMistake(error)) throw error;
      console.error(`${consumer}: ${error.message}`);
      token = null;
      await sleep(200);
    }
  }
  if (token === null) return;
  await pool.query("SELECT es_ack($1, $2)", [subscription, token]);
  await pool.query("SELECT es_renew($1, $2, '0')", [subscription, token]); // others need not wait for the lease to end
}
