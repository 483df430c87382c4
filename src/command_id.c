/*
 * command_id.c: what was answered to a command that came with an id.
 *
 * Command ids have a table of their own and are not event ids in disguise: a
 * decision without events has to be remembered too, an event's id is the
 * user's to give, and the payload must be known to tell a repetition from a
 * mistake.  Only commands with an id pay for it, one row each.  A first try
 * on the same stream or boundary has been waited for under its locks; one on
 * another, a mistake anyway, is found by the unique index.
 */
#include "postgres.h"

#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "common/cryptohash.h"
#include "common/sha2.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "catalog.h"
#include "command_id.h"
#include "compat.h"

/* Columns of es_command; the table's definition rules. */
enum
{
	COMMAND_ID = 1, COMMAND_DIGEST, COMMAND_VERSION, COMMAND_HANDLED_AT,
	COMMAND_STREAM, COMMAND_TYPE, COMMAND_NATTS = COMMAND_TYPE
};

static void
digest_part(pg_cryptohash_ctx *digest, const char *bytes, int len)
{
	uint8		size[4] = {len >> 24, len >> 16, len >> 8, len};

	if (pg_cryptohash_update(digest, size, sizeof(size)) < 0 ||
		pg_cryptohash_update(digest, (const uint8 *) bytes, len) < 0)
		elog(ERROR, "could not compute a digest");
}

/*
 * Fill in the digest of all but the id.
 *
 * The payload goes in as text, which is the same on every machine and in
 * every server version.
 */
void
EsCommandDigest(EsCommand *command)
{
	pg_cryptohash_ctx *digest = pg_cryptohash_create(PG_SHA256);
	uint8		sum[PG_SHA256_DIGEST_LENGTH];
	char	   *payload = JsonbToCString(NULL, &command->payload->root,
										 VARSIZE(command->payload));

	if (digest == NULL || pg_cryptohash_init(digest) < 0)
		elog(ERROR, "could not compute a digest");
	digest_part(digest, command->aggregate, strlen(command->aggregate));
	if (command->stream_id == NULL)
		digest_part(digest, "", 0); /* no stream's name is empty */
	else
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
report_id_used(const EsCommand *command)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("command id %s is already used",
					DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(&command->id)))),
			 errdetail("It belongs to a different command."),
			 errhint("Repeat a command with the same id only unchanged; give a new command a new id.")));
}

/*
 * Was the command handled before?  Then *answer is what it got.  Like
 * an event id's, the answer counts at every isolation level: SnapshotSelf.
 */
bool
EsCommandWasHandled(const EsCommand *command, int64 *answer)
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
		*answer = DatumGetInt64(slot_getattr(slot, COMMAND_VERSION, &isnull));
	}
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	index_close(key, AccessShareLock);
	table_close(rel, NoLock);	/* kept to commit */
	return found;
}

/*
 * Remember the answer.  If the id was taken meanwhile, it was by a command
 * for another stream or boundary, or we should have waited for it.
 */
void
EsCommandRemember(const EsCommand *command, int64 answer)
{
	MemoryContext context = CurrentMemoryContext;
	Datum		values[COMMAND_NATTS];
	bool		nulls[COMMAND_NATTS] = {false};

	values[COMMAND_ID - 1] = UUIDPGetDatum(&command->id);
	values[COMMAND_DIGEST - 1] = UUIDPGetDatum(&command->digest);
	values[COMMAND_VERSION - 1] = Int64GetDatum(answer);
	values[COMMAND_HANDLED_AT - 1] = TimestampTzGetDatum(GetCurrentTimestamp());
	values[COMMAND_STREAM - 1] = PointerGetDatum(command->stream_id);
	nulls[COMMAND_STREAM - 1] = command->stream_id == NULL;
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
