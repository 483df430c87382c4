/*
 * command.c: from a command to the events it leads to.
 *
 * In this order, and the order matters:
 *   1. the stream's lock: from here on nobody else adds to the stream;
 *   2. the command id: one that was handled before is answered and done;
 *   3. the fold of all that is committed by now, which is all there will be
 *      in this stream, and of this transaction's own events.  SnapshotSelf
 *      shows both, and leaves a SERIALIZABLE transaction without predicate
 *      locks on its neighbours' events, which the stream's lock makes needless;
 *   4. the rejection and the decision, with a snapshot newer than the lock;
 *      like the fold, in the definer's name;
 *   5. the append, in the caller's name, with the exact version;
 *   6. a snapshot, if the new events make one due.
 * In REPEATABLE READ and SERIALIZABLE a stream that moved past the
 * transaction's snapshot is a 40001 before anything is decided.
 *
 * Command ids have a table of their own and are not event ids in disguise: a
 * decision without events has to be remembered too, an event's id is the
 * user's to give, and the payload must be known to tell a repetition from a
 * mistake.  Only commands with an id pay for it, one row each.  A first try
 * on the same stream has been waited for under the stream's lock; one on
 * another stream, a mistake anyway, is found by the unique index.
 */
#include "postgres.h"

#include "access/stratnum.h"
#include "access/table.h"
#include "access/xact.h"
#include "common/cryptohash.h"
#include "common/sha2.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "append.h"
#include "catalog.h"
#include "compat.h"
#include "decider.h"
#include "fold.h"
#include "kept.h"
#include "lifecycle.h"
#include "point.h"
#include "snapshot.h"
#include "stat.h"
#include "stream.h"

/* Columns of es_command; the table's definition rules. */
enum
{
	COMMAND_ID = 1, COMMAND_DIGEST, COMMAND_VERSION, COMMAND_HANDLED_AT,
	COMMAND_STREAM, COMMAND_TYPE, COMMAND_NATTS = COMMAND_TYPE
};

/* A command as it was given. */
typedef struct Command
{
	text	   *stream_id;
	text	   *type;
	Jsonb	   *payload;
	bool		has_id;
	pg_uuid_t	id;
	char	   *aggregate;
	pg_uuid_t	digest;			/* of the above but the id; if there is one */
} Command;

PG_FUNCTION_INFO_V1(es_handle);

/* ----- the command's id ----- */

static void
digest_part(pg_cryptohash_ctx *digest, const char *bytes, int len)
{
	uint8		size[4] = {len >> 24, len >> 16, len >> 8, len};

	if (pg_cryptohash_update(digest, size, sizeof(size)) < 0 ||
		pg_cryptohash_update(digest, (const uint8 *) bytes, len) < 0)
		elog(ERROR, "could not compute a digest");
}

/*
 * The payload goes in as text, which is the same on every machine and in
 * every server version.
 */
static void
digest_command(Command *command)
{
	pg_cryptohash_ctx *digest = pg_cryptohash_create(PG_SHA256);
	uint8		sum[PG_SHA256_DIGEST_LENGTH];
	char	   *payload = JsonbToCString(NULL, &command->payload->root,
										 VARSIZE(command->payload));

	if (digest == NULL || pg_cryptohash_init(digest) < 0)
		elog(ERROR, "could not compute a digest");
	digest_part(digest, command->aggregate, strlen(command->aggregate));
	digest_part(digest, VARDATA_ANY(command->stream_id),
				VARSIZE_ANY_EXHDR(command->stream_id));
	digest_part(digest, VARDATA_ANY(command->type),
				VARSIZE_ANY_EXHDR(command->type));
	digest_part(digest, payload, strlen(payload));
	if (pg_cryptohash_final(digest, sum, sizeof(sum)) < 0)
		elog(ERROR, "could not compute a digest");
	pg_cryptohash_free(digest);
	pfree(payload);
	memcpy(command->digest.data, sum, UUID_LEN);
}

static void
report_id_used(const Command *command)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("command id %s is already used",
					DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(&command->id)))),
			 errdetail("It belongs to a different command."),
			 errhint("Repeat a command with the same id only unchanged; give a new command a new id.")));
}

/*
 * Was the command handled before?  Then *version is the answer it got.  Like
 * an event id's, the answer counts at every isolation level: SnapshotSelf.
 */
static bool
was_handled(const Command *command, int64 *version)
{
	Relation	rel = table_open(EsStoreGet()->command, RowExclusiveLock);
	Relation	key = index_open(EsPrimaryKey(rel), AccessShareLock);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	IndexScanDesc scan = EsIndexBeginScan(rel, key, SnapshotSelf, 1);
	ScanKeyData skey;
	bool		found;
	bool		isnull;

	ScanKeyInit(&skey, 1, BTEqualStrategyNumber, F_UUID_EQ,
				UUIDPGetDatum(&command->id));
	index_rescan(scan, &skey, 1, NULL, 0);
	found = index_getnext_slot(scan, ForwardScanDirection, slot);
	if (found)
	{
		pg_uuid_t  *digest = DatumGetUUIDP(slot_getattr(slot, COMMAND_DIGEST, &isnull));

		if (memcmp(digest->data, command->digest.data, UUID_LEN) != 0)
			report_id_used(command);
		*version = DatumGetInt64(slot_getattr(slot, COMMAND_VERSION, &isnull));
	}
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	index_close(key, AccessShareLock);
	table_close(rel, NoLock);	/* kept to commit */
	return found;
}

/*
 * Remember the answer.  If the id was taken meanwhile, it was by a command
 * for another stream, or we should have waited for it.
 */
static void
remember_answer(const Command *command, int64 version)
{
	MemoryContext context = CurrentMemoryContext;
	Datum		values[COMMAND_NATTS];
	bool		nulls[COMMAND_NATTS] = {false};

	values[COMMAND_ID - 1] = UUIDPGetDatum(&command->id);
	values[COMMAND_DIGEST - 1] = UUIDPGetDatum(&command->digest);
	values[COMMAND_VERSION - 1] = Int64GetDatum(version);
	values[COMMAND_HANDLED_AT - 1] = TimestampTzGetDatum(GetCurrentTimestamp());
	values[COMMAND_STREAM - 1] = PointerGetDatum(command->stream_id);
	values[COMMAND_TYPE - 1] = PointerGetDatum(command->type);
	PG_TRY();
	{
		EsRowInsert(EsStoreGet()->command, values, nulls);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		if (geterrcode() != ERRCODE_UNIQUE_VIOLATION)
			PG_RE_THROW();
		FlushErrorState();
		report_id_used(command);
	}
	PG_END_TRY();
}

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
event_metadata(const Command *command, Jsonb *own)
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

/* ----- handle ----- */

static void
report_rejection(const Command *command, int64 version, const char *reason)
{
	EsStatCount(ES_COUNT_REJECTED, 1);
	ereport(ERROR,
			(errcode(ERRCODE_RAISE_EXCEPTION),
			 errmsg("%s", reason),
			 errdetail("Command \"%s\" was rejected for stream \"%s\" at version " INT64_FORMAT ".",
					   text_to_cstring(command->type),
					   text_to_cstring(command->stream_id), version)));
}

/* 40001 where the stream moved past a snapshot that stays the same. */
static void
check_snapshot(Relation event, const Command *command)
{
	Relation	stream_key;

	if (ES_BUG == 42 || !IsolationUsesXactSnapshot())
		return;
	stream_key = index_open(EsStoreGet()->stream_key, AccessShareLock);
	(void) EsStreamHeadForAppend(event, stream_key, command->stream_id);
	index_close(stream_key, AccessShareLock);
}

static int64
append_decided(const Command *command, const EsDecision *decision, int64 version)
{
	EsAppend	append = {0};

	if (decision->nevents == 0)
		return version;
	append.stream_id = command->stream_id;
	append.expected_version = version;
	append.events = decision->events;
	append.nevents = decision->nevents;
	for (int i = 0; i < append.nevents; i++)
		append.events[i].metadata =
			event_metadata(command, append.events[i].metadata);
	return EsAppendEvents(&append);
}

/*
 * What the new events make due: the fold goes on where it ended.
 */
static void
take_snapshot(EsFold *fold)
{
	EsFoldResume(fold);
	(void) EsSnapshotEnd(fold, true);
	EsKeptNoteSnapshot(fold, fold->version);
}

/* The stream is locked.  Answers the new version. */
static int64
decide_and_append(Relation event, const Command *command)
{
	EsAggregate *aggregate = EsAggregateOpen(command->aggregate);
	EsDecider  *decider = EsDeciderFind(aggregate, command->type);
	EsDecision	decision;
	EsFold		fold;
	int64		version;
	bool		due;

	EsFoldBegin(&fold, aggregate, event, command->stream_id, SnapshotSelf);
	EsKeptFold(&fold);
	EsDeciderDecide(aggregate, decider, command->stream_id, command->payload,
					&decision);
	EsFoldEnd(&fold);
	due = decision.rejection == NULL &&
		EsSnapshotIsDue(&fold, fold.version + decision.nevents);
	if (!due)					/* free for what triggers may do with it */
		EsAggregateClose(aggregate);
	if (decision.rejection != NULL)
		report_rejection(command, fold.version, decision.rejection);
	version = append_decided(command, &decision, fold.version);
	if (due)
	{
		take_snapshot(&fold);
		EsAggregateClose(aggregate);
	}
	return version;
}

static int64
handle_command(Relation event, const Command *command)
{
	int64		version;

	if (ES_BUG != 41)
		EsStreamLock(EsStoreGet(), command->stream_id);
	if (command->has_id && was_handled(command, &version))
	{
		EsStatCount(ES_COUNT_RETRIES, 1);
		return version;
	}
	EsStreamCheckOpen(command->stream_id);
	check_snapshot(event, command);
	CommandCounterIncrement();
	PushActiveSnapshot(ES_BUG == 46 ? GetActiveSnapshot() : GetTransactionSnapshot());
	version = decide_and_append(event, command);
	PopActiveSnapshot();
	if (command->has_id)
		remember_answer(command, version);
	return version;
}

/*
 * es_handle(stream_id text, command_type text, command jsonb,
 *			 command_id uuid, aggregate text) → bigint
 */
Datum
es_handle(PG_FUNCTION_ARGS)
{
	Command		command = {0};
	Relation	event;
	int64		version;

	PreventCommandIfReadOnly("es_handle()");
	PreventCommandIfParallelMode("es_handle()");
	EsRequireArgument(fcinfo, 0, "stream_id");
	EsRequireArgument(fcinfo, 1, "command_type");
	EsRequireArgument(fcinfo, 2, "command");
	command.stream_id = PG_GETARG_TEXT_PP(0);
	EsCheckStreamId(command.stream_id);
	command.type = PG_GETARG_TEXT_PP(1);
	command.payload = PG_GETARG_JSONB_P(2);
	command.has_id = !PG_ARGISNULL(3);

	event = table_open(EsStoreGet()->event, RowExclusiveLock);
	EsCheckPrivilege(event, ACL_SELECT);
	EsCheckPrivilege(event, ACL_INSERT);
	command.aggregate = EsAggregateName(PG_ARGISNULL(4) ? NULL : PG_GETARG_TEXT_PP(4),
										command.stream_id);
	if (command.has_id)
	{
		command.id = *PG_GETARG_UUID_P(3);
		digest_command(&command);
	}
	version = handle_command(event, &command);
	table_close(event, NoLock);	/* kept to commit */
	PG_RETURN_INT64(version);
}
