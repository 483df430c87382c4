// consumers-sink.mjs redis|nats: what has arrived there, in its order: stream id, version, position, event id, partition.
import { connect } from "nats";
import { createClient } from "redis";

const print = (...values) => process.stdout.write(values.join("\t") + "\n");

async function readRedis() {
  const redis = createClient({ socket: { path: process.env.REDIS_URL } });

  await redis.connect();
  for (const key of (await redis.keys("events:*")).sort())
    for (const { id, message } of await redis.xRange(key, "-", "+"))
      print(message.stream_id, message.version, id.replace(/-0$/, ""), message.event_id, key.replace("events:", ""));
  await redis.close();
}

async function readNats() {
  const nats = await connect({ servers: process.env.NATS_URL });
  const stream = await (await nats.jetstreamManager()).streams.info("events");

  if (stream.state.messages > 0) {
    const consumer = await nats.jetstream().consumers.get("events");
    let left = stream.state.messages;
    for await (const message of await consumer.consume({ max_messages: 1000 })) {
      print(
        decodeURIComponent(message.headers.get("es-stream-id")),
        message.headers.get("es-version"),
        message.headers.get("es-position"),
        message.headers.get("es-event-id"),
        message.subject
      );
      if (--left === 0) break;
    }
  }
  await nats.close();
}

await { redis: readRedis, nats: readNats }[process.argv[2]]();
