// The EventStore interface of npm @dcb-es/event-store over eventstore's SQL, with npm pg.
//
//   const store = new PostgresEventStore(new pg.Pool());
//   const { state, appendCondition } = await buildDecisionModel(store, { … });
//   await store.append({ events, condition: appendCondition });
//
// append takes one command or several; several are one transaction.  A lost race is their AppendConditionError.
import { AppendConditionError, SequencePosition, Tags, ensureIsArray } from "@dcb-es/event-store";

const queryOf = query =>
  query.isAll
    ? {}
    : { items: query.items.map(item => ({ types: item.types, tags: item.tags ? item.tags.values : [] })) };

const eventOf = row => ({
  event: { type: row.event_type, tags: Tags.from(row.tags ?? []), data: row.data, metadata: row.metadata ?? undefined },
  position: SequencePosition.fromString(row.position)
});

export class PostgresEventStore {
  #pool;

  constructor(pool) {
    this.#pool = pool;
  }

  async append(command) {
    const commands = ensureIsArray(command);
    const client = await this.#pool.connect();

    try {
      await client.query("BEGIN");
      let position;
      for (const [i, one] of commands.entries())
        position = await this.#appendOne(client, one, commands.length > 1 ? i : undefined);
      await client.query("COMMIT");
      return position;
    } catch (error) {
      await client.query("ROLLBACK");
      throw error;
    } finally {
      client.release();
    }
  }

  // A condition is about what was there before the commands.  The server counts what the transaction itself appended, so go on
  // behind such an event; the one it names is the first that matches.
  async #appendOne(client, { events, condition }, index) {
    const json = JSON.stringify(
      ensureIsArray(events).map(({ type, data, metadata, tags }) => ({ type, data: data ?? null, metadata, tags: tags.values }))
    );
    const query = condition && JSON.stringify(queryOf(condition.failIfEventsMatch));
    let after = condition?.after?.toString();

    for (;;) {
      const { rows } = await client.query("SELECT appended, position, conflict_position FROM es_try_append_if($1, $2, $3)", [json, query, after]);
      if (rows[0].appended) return SequencePosition.fromString(rows[0].position);
      after = rows[0].conflict_position;
      const own = await client.query("SELECT FROM es_event WHERE position = $1 AND xmin = pg_current_xact_id()::xid", [after]);
      if (own.rowCount === 0) throw new AppendConditionError(condition, index);
    }
  }

  async *read(query, { after, limit, backwards } = {}) {
    const { rows } = await this.#pool.query("SELECT * FROM es_read($1, $2, $3, $4)", [
      JSON.stringify(queryOf(query)),
      after?.toString() ?? 0,
      limit,
      backwards ?? false
    ]);
    for (const row of rows) yield eventOf(row);
  }

  async *subscribe(query, { after = SequencePosition.initial(), pollIntervalMs = 100, signal } = {}) {
    while (!signal?.aborted) {
      let found = false;
      for await (const event of this.read(query, { after, limit: 1000 })) {
        found = true;
        after = event.position;
        yield event;
        if (signal?.aborted) return;
      }
      if (!found) await new Promise(resolve => setTimeout(resolve, pollIntervalMs));
    }
  }
}
