// consumer-redis.mjs SUBSCRIPTION CONSUMER [LEASE]: events into Redis Streams, each exactly once in effect.
//
//   SELECT es_create_subscription('redis', partitions => 4, max_attempts => NULL);
//
// Each partition becomes a Redis stream, "events:0", "events:1" and so on, in which an event's id is its position: 42-0.  Redis
// takes ids in ascending order only, so what comes a second time, after a crash or from a consumer that was thought dead, is
// refused there.  This is why nothing is to be put aside: an event that is late could not be told from one that is there.
//
// Connects by the PG* variables and REDIS_URL (a URL, or the path of a socket).
import pg from "pg";
import { createClient } from "redis";
import { subscribe } from "./subscriber.mjs";

const [subscription, consumer, lease] = process.argv.slice(2);
const pool = new pg.Pool({ max: 2 });
const url = process.env.REDIS_URL ?? "redis://localhost:6379";
const redis = createClient(url.startsWith("/") ? { socket: { path: url } } : { url });
const stop = new AbortController();

// All events of a partition in one script: the first that fails for another reason than being known ends it, so that no later
// one can get in before it.  Answers how many were new.
const ADD = `
  local new = 0
  for i = 1, #ARGV, 2 do
    local reply = redis.pcall('XADD', KEYS[1], ARGV[i], unpack(cjson.decode(ARGV[i + 1])))
    if type(reply) ~= 'table' then new = new + 1
    elseif not string.find(reply.err, 'equal or smaller', 1, true) then return reply end
  end
  return new`;

const fields = event =>
  Object.entries({
    event_id: event.event_id,
    stream_id: event.stream_id,
    version: event.version,
    event_type: event.event_type,
    type_version: String(event.type_version),
    recorded_at: event.recorded_at.toISOString(),
    data: JSON.stringify(event.data),
    metadata: JSON.stringify(event.metadata)
  }).flat();

async function addAll(events) {
  const partitions = new Map();
  let added = 0;

  for (const event of events) partitions.set(event.partition, [...(partitions.get(event.partition) ?? []), event]);
  for (const [partition, its] of partitions)
    added += await redis.eval(ADD, {
      keys: [`events:${partition}`],
      arguments: its.flatMap(event => [`${event.position}-0`, JSON.stringify(fields(event))])
    });
  console.log(`${consumer}: ${added} new, ${events.length - added} known`);
}

redis.on("error", error => console.error(`${consumer}: ${error.message}`));
for (const name of ["SIGINT", "SIGTERM"]) process.on(name, () => stop.abort());
await redis.connect();
await subscribe(pool, { subscription, consumer, lease, signal: stop.signal }, addAll);
await redis.close();
await pool.end();
