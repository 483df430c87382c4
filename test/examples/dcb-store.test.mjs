// Drive the decision models of npm @dcb-es/event-store against a real server; see test/t/dcb.pl.  Prints TAP lines.
import pg from "pg";
import { AppendConditionError, Query, SequencePosition, Tags, buildDecisionModel } from "@dcb-es/event-store";
import { PostgresEventStore } from "./dcb-store.mjs";

const pool = new pg.Pool({ max: 20 });
const store = new PostgresEventStore(pool);
let count = 0;

const ok = (condition, name) => console.log(`${condition ? "ok" : "not ok"} ${++count} - ${name}`);
const all = async (query, options) => {
  const found = [];
  for await (const event of store.read(query, options)) found.push(event);
  return found;
};

const tags = values => Tags.fromObj(values);
const capacity = courseId => ({
  tagFilter: tags({ courseId }),
  init: 0,
  when: { courseDefined: ({ event }) => event.data.capacity }
});
const taken = courseId => ({
  tagFilter: tags({ courseId }),
  init: 0,
  when: { studentSubscribed: (_, n) => n + 1 }
});
const courses = studentId => ({
  tagFilter: tags({ studentId }),
  init: 0,
  when: { studentSubscribed: (_, n) => n + 1 }
});

const subscribe = async (courseId, studentId) => {
  for (;;) {
    const { state, appendCondition } = await buildDecisionModel(store, {
      capacity: capacity(courseId),
      taken: taken(courseId),
      courses: courses(studentId)
    });
    if (state.taken >= state.capacity) return "full";
    if (state.courses >= 3) return "busy";
    try {
      await store.append({
        events: { type: "studentSubscribed", data: { courseId, studentId }, metadata: { by: "test" }, tags: tags({ courseId, studentId }) },
        condition: appendCondition
      });
      return "subscribed";
    } catch (error) {
      if (!(error instanceof AppendConditionError)) throw error;
    }
  }
};

// Several events at once, reading them back in both directions.
const defined = [1, 2, 3, 4].map(n => ({
  type: "courseDefined",
  data: { capacity: 5 },
  metadata: { n },
  tags: tags({ courseId: `c${n}` })
}));
const last = await store.append({ events: defined });
const read = await all(Query.all());
ok(read.length === 4 && read[3].position.equals(last), "append answers the last position");
ok(JSON.stringify(read.map(e => e.event.metadata.n)) === "[1,2,3,4]", "events come back in order, with their metadata");
ok(read[0].event.tags.equals(defined[0].tags), "and with their tags");
ok((await all(Query.all(), { backwards: true, limit: 2 }))[1].event.metadata.n === 3, "backwards, with a limit");
ok((await all(Query.all(), { after: read[1].position })).length === 2, "after a position");

// A stale condition is refused, a fresh one is not.
const condition = { failIfEventsMatch: Query.fromItems([{ types: ["courseDefined"], tags: tags({ courseId: "c1" }) }]) };
const refused = command => store.append(command).then(() => false, error => error instanceof AppendConditionError);
ok(await refused({ events: defined[0], condition }), "a condition without a position guards what is unique");
ok(await refused({ events: defined[0], condition: { ...condition, after: SequencePosition.initial() } }), "a stale position is refused");
ok(!(await refused({ events: { ...defined[0], type: "courseRenamed" }, condition: { ...condition, after: last } })), "a fresh one is not");
const before = (await all(Query.all())).length;
ok(await refused([{ events: defined[1] }, { events: defined[0], condition }]), "several commands are refused together");
ok((await all(Query.all())).length === before, "and leave nothing behind");

const guarded = n => ({
  events: { ...defined[0], tags: tags({ courseId: n }) },
  condition: { failIfEventsMatch: Query.fromItems([{ types: ["courseDefined"], tags: tags({ courseId: n }) }]) }
});
ok(!(await refused([guarded("c7"), guarded("c7")])), "a condition is about what was there before the commands");
ok(await refused([guarded("c8"), guarded("c7")]), "and that alone");

// Decisions over several entities, one after the other and at once.
ok((await subscribe("nowhere", "s0")) === "full", "a course that is not defined has no seat");
const answers = await Promise.all(
  Array.from({ length: 16 }, (_, s) => s).flatMap(s => [1, 2, 3, 4].map(c => subscribe(`c${c}`, `s${s % 8}`)))
);
const subscribed = await all(Query.fromItems([{ types: ["studentSubscribed"] }]));
const per = key => {
  const counts = new Map();
  for (const { event } of subscribed) counts.set(event.data[key], (counts.get(event.data[key]) ?? 0) + 1);
  return [...counts.values()];
};
ok(answers.filter(a => a === "subscribed").length === subscribed.length, "who was told so is subscribed");
ok(per("courseId").every(n => n <= 5), `no course is overbooked (${per("courseId")})`);
ok(per("studentId").every(n => n <= 3), `no student has too many courses (${per("studentId")})`);

// Subscribing: every event once, while others append.
const controller = new AbortController();
const seen = [];
const following = (async () => {
  for await (const { event } of store.subscribe(Query.fromItems([{ types: ["ticked"], tags: tags({ clock: "1" }) }]), { pollIntervalMs: 5, signal: controller.signal })) {
    seen.push(event.data);
    if (seen.length === 40) controller.abort();
  }
})();
await Promise.all(Array.from({ length: 40 }, (_, n) => store.append({ events: { type: "ticked", data: n, metadata: {}, tags: tags({ clock: "1" }) } })));
await following;
ok(new Set(seen).size === 40, "a subscription meets every event once");

console.log(`1..${count}`);
await pool.end();
