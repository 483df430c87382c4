// consumer-nats.mjs SUBSCRIPTION CONSUMER [LEASE]: events into NATS JetStream, once each within its duplicate window.
//
//   SELECT es_create_subscription('nats', partitions => 4, max_attempts => NULL);
//
// An event goes to the subject "events.<category>.<event type>" with its event id as the message id, by which JetStream
// recognises what comes a second time; how long it remembers is the stream's duplicate_window.  Beyond that, a reader goes by
// the headers: versions of a stream ascend one by one.
//
// Connects by the PG* variables and NATS_URL.
import pg from "pg";
import { connect, headers, nanos } from "nats";
import { subscribe } from "./subscriber.mjs";

const [subscription, consumer, lease] = process.argv.slice(2);
const pool = new pg.Pool({ max: 2 });
const nats = await connect({ servers: process.env.NATS_URL ?? "nats://localhost:4222", name: consumer });
const jetstream = nats.jetstream();
const stop = new AbortController();

// A token of a subject may hold anything but these.
const token = text => text.replace(/[\s.*>]/g, "_") || "_";

async function publish(event) {
  const head = headers();

  for (const name of ["event_id", "stream_id", "version", "position", "event_type", "type_version"])
    head.set(`es-${name.replace("_", "-")}`, encodeURIComponent(event[name]));
  head.set("es-recorded-at", event.recorded_at.toISOString());
  const ack = await jetstream.publish(
    `events.${token(event.stream_id.split("-")[0])}.${token(event.event_type)}`,
    JSON.stringify({ data: event.data, metadata: event.metadata }),
    { msgID: event.event_id, headers: head }
  );
  return !ack.duplicate;
}

// The events of one stream one after the other, so that none overtakes one that failed; different streams side by side.
async function publishAll(events) {
  const streams = new Map();
  let added = 0;

  for (const event of events) streams.set(event.stream_id, [...(streams.get(event.stream_id) ?? []), event]);
  const results = await Promise.allSettled(
    [...streams.values()].map(async its => {
      for (const event of its) if (await publish(event)) added++;
    })
  );
  const failed = results.find(result => result.status === "rejected");
  if (failed) throw failed.reason;
  console.log(`${consumer}: ${added} new, ${events.length - added} known`);
}

for (const name of ["SIGINT", "SIGTERM"]) process.on(name, () => stop.abort());
await (await nats.jetstreamManager()).streams.add({
  name: "events",
  subjects: ["events.>"],
  duplicate_window: nanos(10 * 60 * 1000)
});
await subscribe(pool, { subscription, consumer, lease, signal: stop.signal }, publishAll);
await nats.drain();
await pool.end();
