/*
 * command.c: from a command to the events it leads to.
 *
 * In this order, and the order matters:
 *   1. the locks on what is decided on, a stream or a boundary: from here on
 *      nobody else adds to it;
 *   2. the command id: one that was handled before is answered and done;
 *   3. the fold of all that is committed by now, which is all there will be,
 *      and of this transaction's own events;
 *   4. the rejection and the decision, with a snapshot newer than the lock;
 *      like the fold, in the definer's name;
 *   5. the locks on what is appended, as far as 1 did not take them;
 *   6. the append, in the caller's name; to a stream with the exact version;
 *   7. a snapshot, if the new events make one due.
 * In REPEATABLE READ and SERIALIZABLE a stream or a boundary that moved past
 * the transaction's snapshot is a 40001 before anything is decided.
 *
 * A stream is folded with SnapshotSelf, which shows what 3 says and leaves a
 * SERIALIZABLE transaction without predicate locks on its neighbours' events,
 * which the stream's lock makes needless: whoever appends to it besides is told
 * 40001.  Not so where nothing is appended to it in the end: then it was only
 * read, and is read once more for SERIALIZABLE to know.  A boundary is, at those levels,
 * folded with the transaction's snapshot: it may depend on events that are
 * nowhere near to what it appends, and SERIALIZABLE has to know.
 *
 * ALL LOCKS IN ONE ORDER.  What is appended is known only when it is decided,
 * and what is decided on has to be locked before.  So 1 takes what the events
 * are likely to need, too: they will carry the tags that the boundary asks
 * for.  Where that was not enough, 5 takes the rest only if it need not wait.
 * If it had to, two commands could wait for each other.  Then everything since
 * 1 is undone, the locks included, for which it is a subtransaction, and
 * done again with all locks that the decision wanted: sorted, and before it
 * is made.  If that goes on, all other appends are locked out.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "append.h"
#include "attempt.h"
#include "boundary.h"
#include "boundary_state.h"
#include "catalog.h"
#include "category.h"
#include "command_id.h"
#include "decider.h"
#include "definition.h"
#include "event_set.h"
#include "event_type.h"
#include "fold.h"
#include "kept.h"
#include "lifecycle.h"
#include "metadata.h"
#include "point.h"
#include "query_template.h"
#include "snapshot.h"
#include "stat.h"
#include "stream.h"
#include "tag.h"

/* How often a decision is made again before all others are locked out. */
#define ES_MAX_ROUNDS 4

/* A command on its way to its events. */
typedef struct Handling
{
	const EsCommand *command;
	const EsStore *store;
	Relation	event;
	EsBoundary *query;			/* what it is decided on; NULL: the stream */
	uint64		generation;		/* of the definitions that say so */
	bool		may_wait;		/* the events may need locks not taken at first */
	EsLockKey  *wanted;			/* by events that were decided before */
	int			nwanted;
	int			rounds;			/* decisions made */
	EsAggregate *aggregate;
	EsFold		fold;
	EsEventSet *set;			/* the events; NULL: the command was handled before */
	int64		answer;			/* version of the stream, position of the boundary */
	bool		due;			/* the stream is due for a snapshot */
} Handling;

PG_FUNCTION_INFO_V1(es_handle);

/* ----- metadata ----- */

static void
push_pair(JsonbParseState **state, const char *key, char *value)
{
	JsonbValue	v;

	v.type = jbvString;
	v.val.string.val = unconstify(char *, key);
	v.val.string.len = strlen(key);
	pushJsonbValue(state, WJB_KEY, &v);
	v.val.string.val = value;
	v.val.string.len = strlen(value);
	pushJsonbValue(state, WJB_VALUE, &v);
}

static bool
has_key(Jsonb *object, const char *key)
{
	JsonbValue	value;

	return object != NULL &&
		getKeyJsonValueFromContainer(&object->root, key, strlen(key), &value) != NULL;
}

/*
 * The metadata of a decided event: the session's, the decider's on top, and
 * the command as the cause.
 */
static Jsonb *
event_metadata(const EsCommand *command, Jsonb *own)
{
	Jsonb	   *metadata = EsMergeMetadata(own);
	JsonbParseState *state = NULL;
	char	   *id;
	Jsonb	   *cause;

	if (!command->has_id)
		return metadata;
	id = DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(&command->id)));
	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	push_pair(&state, "causation_id", id);
	if (!has_key(metadata, "correlation_id"))
		push_pair(&state, "correlation_id", id);
	cause = JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
	if (metadata == NULL)
		return cause;
	return DatumGetJsonbP(DirectFunctionCall2(jsonb_concat,
											  JsonbPGetDatum(metadata),
											  JsonbPGetDatum(cause)));
}

/* ----- locks ----- */

/* Keys for all tags of the boundary, as if an event with them were appended. */
static int
add_likely_keys(const EsBoundary *query, EsLockKey *keys)
{
	int			nkeys = 0;

	for (int i = 0; i < query->nitems; i++)
		for (int n = 0; n < query->items[i].ntags; n++)
			keys[nkeys++] = EsLockKeyOf(ES_LOCK_TAG, query->items[i].tags[n],
										RowExclusiveLock);
	return nkeys;
}

/* Lock what is decided on, and what the events are likely to need. */
static void
lock_before(const Handling *handling)
{
	const EsBoundary *query = handling->query;
	int			nitems = query == NULL ? 0 : query->nitems;
	EsLockKey  *keys;
	int			nkeys = 0;

	if (handling->rounds > ES_MAX_ROUNDS || (query != NULL && query->broad))
	{
		EsGateClose(handling->store);
		return;
	}
	keys = palloc((1 + (Size) nitems * (1 + ES_MAX_TAGS) + handling->nwanted) * sizeof(EsLockKey));
	if (handling->command->stream_id != NULL && ES_BUG != 41)
		keys[nkeys++] = EsLockKeyOf(ES_LOCK_STREAM, handling->command->stream_id,
									ExclusiveLock);
	if (query != NULL && ES_BUG != 69)
	{
		nkeys += EsBoundaryAddKeys(query, keys + nkeys);
		nkeys += add_likely_keys(query, keys + nkeys);
	}
	if (handling->nwanted > 0)
		memcpy(keys + nkeys, handling->wanted, handling->nwanted * sizeof(EsLockKey));
	EsLockKeys(handling->store, keys, nkeys + handling->nwanted);
	pfree(keys);
}

/* Lock what the events need, if nobody is in the way; else note it. */
static bool
lock_after(Handling *handling)
{
	EsLockKey  *keys;
	int			nkeys;

	if (!handling->may_wait || handling->set->nevents == 0 || ES_BUG == 70)
		return true;
	keys = EsEventSetKeys(handling->set, handling->nwanted, &nkeys);
	if (EsLockKeysTry(handling->store, keys, nkeys))
		return true;
	if (handling->nwanted > 0)
		memcpy(keys + nkeys, handling->wanted, handling->nwanted * sizeof(EsLockKey));
	handling->wanted = keys;
	handling->nwanted += nkeys;
	return false;
}

/* ----- decide ----- */

static void
report_rejection(const Handling *handling, const char *reason)
{
	const char *type = text_to_cstring(handling->command->type);

	EsStatCount(ES_COUNT_REJECTED, 1);
	ereport(ERROR,
			(errcode(ERRCODE_RAISE_EXCEPTION),
			 errmsg("%s", reason),
			 handling->query == NULL ?
			 errdetail("Command \"%s\" was rejected for stream \"%s\" at version " INT64_FORMAT ".",
					   type, text_to_cstring(handling->command->stream_id),
					   handling->answer) :
			 errdetail("Command \"%s\" was rejected by aggregate \"%s\"; the last event of its boundary is at position " INT64_FORMAT ".",
					   type, handling->command->aggregate, handling->answer)));
}

/* 40001 where the stream moved past a snapshot that stays the same. */
static void
check_snapshot(const Handling *handling)
{
	Relation	stream_key;

	if (ES_BUG == 42 || !IsolationUsesXactSnapshot())
		return;
	if (handling->query != NULL)
	{
		EsBoundaryCheckSnapshot(handling->event, handling->store, handling->query);
		return;
	}
	stream_key = index_open(handling->store->stream_key, AccessShareLock);
	(void) EsStreamHeadForAppend(handling->event, stream_key, handling->command->stream_id);
	index_close(stream_key, AccessShareLock);
}

/* Fold what is decided on; the fold is to be ended by the caller. */
static void
fold(Handling *handling)
{
	const EsCommand *command = handling->command;

	if (handling->query != NULL)
	{
		EsFoldBeginBoundary(&handling->fold, handling->aggregate,
							handling->event, command->payload);
		handling->answer = EsBoundaryFold(&handling->fold, handling->store, handling->query,
										  IsolationUsesXactSnapshot() ? GetActiveSnapshot() : SnapshotSelf);
		return;
	}
	EsFoldBegin(&handling->fold, handling->aggregate, handling->event,
				command->stream_id, SnapshotSelf);
	EsKeptFold(&handling->fold);
	handling->answer = handling->fold.version;
}

/* Does none of the decided events go to the stream that was decided on? */
static bool
leaves_stream_alone(const EsCommand *command, const EsDecision *decision)
{
	for (int i = 0; i < decision->nevents; i++)
	{
		const text *to = decision->stream_ids[i];

		if (to == NULL ||
			(VARSIZE_ANY_EXHDR(to) == VARSIZE_ANY_EXHDR(command->stream_id) &&
			 memcmp(VARDATA_ANY(to), VARDATA_ANY(command->stream_id),
					VARSIZE_ANY_EXHDR(to)) == 0))
			return decision->rejection != NULL;
	}
	return true;
}

/* Let SERIALIZABLE know that the stream's end was read. */
static void
note_read(const Handling *handling)
{
	if (ES_BUG != 119 && IsolationIsSerializable())
		(void) EsStreamHeadRead(handling->event, handling->command->stream_id,
								GetTransactionSnapshot());
}

/* The decided events as they are to be appended. */
static EsEventSet *
make_events(const Handling *handling, const EsDecision *decision)
{
	const EsCommand *command = handling->command;
	EsEventSet *set = EsEventSetCreate(decision->events, decision->nevents);

	for (int i = 0; i < decision->nevents; i++)
	{
		text	   *stream_id = decision->stream_ids[i];

		decision->events[i].metadata = event_metadata(command, decision->events[i].metadata);
		EsEventSetPlace(set, i, stream_id != NULL ? stream_id : command->stream_id);
	}
	EsEventSetCut(set);
	if (handling->query == NULL && set->nruns > 0)
	{
		set->runs[0].expected_version = handling->answer;
		set->runs[0].locked = handling->may_wait;
	}
	if (handling->may_wait)
		EsEventSetApplyTypes(set);
	return set;
}

/*
 * Decide on the command; the aggregate stays open.  The snapshot that counts
 * is active.
 */
static void
decide(Handling *handling)
{
	const EsCommand *command = handling->command;
	EsDecider  *decider = EsDeciderFind(handling->aggregate, command->type);
	EsDecision	decision;

	fold(handling);
	EsDeciderDecide(handling->aggregate, decider, command->stream_id,
					command->payload, &decision);
	EsFoldEnd(&handling->fold);
	if (handling->query == NULL && leaves_stream_alone(command, &decision))
		note_read(handling);
	if (decision.rejection != NULL)
		report_rejection(handling, decision.rejection);
	handling->due = handling->query == NULL &&
		EsSnapshotIsDue(&handling->fold, handling->fold.version + decision.nevents);
	if (!handling->due)			/* free for what triggers may do with it */
		EsAggregateClose(handling->aggregate);
	handling->set = make_events(handling, &decision);
}

/*
 * Lock, look for the command id, fold, decide and lock again.  Leaves an
 * active snapshot where it decided.  False if it is to be done again, when all
 * of this has been undone.
 */
static bool
decide_under_locks(Handling *handling)
{
	const EsCommand *command = handling->command;
	int64		last_position = EsLastPosition();

	lock_before(handling);
	handling->set = NULL;
	if (command->has_id && EsCommandWasHandled(command, &handling->answer))
	{
		EsStatCount(ES_COUNT_RETRIES, 1);
		return true;
	}
	if (handling->query == NULL)
		EsStreamCheckOpen(handling->event, command->stream_id);
	check_snapshot(handling);
	CommandCounterIncrement();
	PushActiveSnapshot(ES_BUG == 46 ? GetActiveSnapshot() : GetTransactionSnapshot());
	handling->aggregate = EsAggregateOpen(command->aggregate);
	if (handling->may_wait && handling->aggregate->generation != handling->generation)
		return false;			/* the definition changed while we waited */
	decide(handling);
	if (handling->query != NULL && EsLastPosition() != last_position)
		EsBoundaryCheckSame(handling->event, handling->store, handling->query,
							handling->answer);
	return lock_after(handling);
}

static bool
decide_attempt(void *handling)
{
	return decide_under_locks(handling);
}

/* decide_under_locks in a subtransaction, which is rolled back for false. */
static bool
decide_in_subtransaction(Handling *handling)
{
	ErrorData  *error;
	bool		done = EsAttempt(decide_attempt, handling, &error);

	if (error != NULL)
		ReThrowError(error);
	return done;
}

/* ----- handle ----- */

/*
 * What the definitions say of the command: what it is decided on, and whether
 * its events may need locks that are not known before.
 */
static void
look_ahead(Handling *handling)
{
	const EsCommand *command = handling->command;
	EsAggregate *aggregate = EsAggregateOpen(command->aggregate);
	EsDecider  *decider = EsDeciderFind(aggregate, command->type);

	handling->generation = aggregate->generation;
	handling->query = aggregate->boundary == NULL ? NULL :
		EsQueryTemplateFill(aggregate->boundary, command->payload);
	handling->may_wait = handling->query != NULL ||
		EsDeciderGivesTags(decider) || EsEventTypesGiveTags();
	EsAggregateClose(aggregate);
	if (handling->query == NULL && command->stream_id == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"%s\" must not be null", "stream_id"),
				 errdetail("Aggregate \"%s\" folds streams.", command->aggregate)));
}

/*
 * What the new events make due: the fold goes on where it ended.
 */
static void
take_snapshot(Handling *handling)
{
	EsFoldResume(&handling->fold);
	(void) EsSnapshotEnd(&handling->fold, true);
	EsKeptNoteSnapshot(&handling->fold, handling->fold.version);
	EsAggregateClose(handling->aggregate);
}

/* Append what was decided. */
static void
append(Handling *handling)
{
	EsEventSet *set = handling->set;

	if (handling->due)
		EsAggregateKeep(handling->aggregate);
	if (set->nevents > 0)
	{
		int64		position = EsEventSetAppend(set);

		handling->answer = handling->query != NULL ? position :
			set->events[set->nevents - 1].version;
	}
	if (handling->due)
		take_snapshot(handling);
	PopActiveSnapshot();
	if (handling->command->has_id)
		EsCommandRemember(handling->command, handling->answer);
}

static int64
handle_command(Relation event, const EsStore *store, const EsCommand *command)
{
	Handling	handling = {.command = command,.event = event,.store = store};
	bool		done;

	do
	{
		CHECK_FOR_INTERRUPTS();
		look_ahead(&handling);
		handling.rounds++;
		done = handling.may_wait ? decide_in_subtransaction(&handling) :
			decide_under_locks(&handling);
	} while (!done);
	if (handling.set != NULL)
		append(&handling);
	return handling.answer;
}

/*
 * es_handle(stream_id text, command_type text, command jsonb,
 *			 command_id uuid, aggregate text) → bigint
 */
Datum
es_handle(PG_FUNCTION_ARGS)
{
	EsCommand	command = {0};
	const EsStore *store;
	Relation	event;
	int64		answer;

	EsRequireReadWrite("es_handle()");
	PreventCommandIfParallelMode("es_handle()");
	if (PG_ARGISNULL(4))
		EsRequireArgument(fcinfo, 0, "stream_id");
	EsRequireArgument(fcinfo, 1, "command_type");
	EsRequireArgument(fcinfo, 2, "command");
	command.stream_id = PG_ARGISNULL(0) ? NULL : PG_GETARG_TEXT_PP(0);
	if (command.stream_id != NULL)
		EsCheckStreamId(command.stream_id);
	command.type = PG_GETARG_TEXT_PP(1);
	command.payload = PG_GETARG_JSONB_P(2);
	command.has_id = !PG_ARGISNULL(3);

	event = EsEventOpen(&store, RowExclusiveLock);
	EsCheckPrivilege(event, ACL_SELECT);
	EsCheckPrivilege(event, ACL_INSERT);
	command.aggregate = EsAggregateName(PG_ARGISNULL(4) ? NULL : PG_GETARG_TEXT_PP(4),
										command.stream_id);
	if (command.has_id)
	{
		command.id = *PG_GETARG_UUID_P(3);
		EsCommandDigest(&command);
	}
	answer = handle_command(event, store, &command);
	table_close(event, NoLock);	/* kept to commit */
	PG_RETURN_INT64(answer);
}
