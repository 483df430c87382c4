/*
 * stream.c: stream names, the lock on a stream and its current version.
 *
 * There is no row for a stream's head.  The current version is the last
 * entry of the stream in the (stream_id, version) index, so a hot stream
 * leaves no dead rows behind, and the lock that makes "read the version,
 * then write the next one" safe lives in the lock manager.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/tuptable.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"

#include "archive.h"
#include "attempt.h"
#include "compat.h"
#include "scan.h"
#include "point.h"
#include "row_security.h"
#include "stat.h"
#include "stream.h"

/* How often a stream's lock is asked for before this session queues for it. */
#define ES_LOCK_TRIES 40

/* Streams and tags one transaction locks singly before it takes the gate. */
static int	max_stream_locks = 64;

/*
 * Both belong to the transaction whose local id stands beside them.  The
 * count may be too high after a savepoint was rolled back: the gate is then
 * taken early, which is harmless.
 */
static LocalTransactionId counted_lxid = InvalidLocalTransactionId;
static int	stream_locks = 0;
static LocalTransactionId gate_lxid = InvalidLocalTransactionId;

/*
 * The version this session last gave to streams it appended to, by the hash
 * of the name.  Only a place to look from: a probe that starts there need not
 * step over all the stream's older entries on the leaf page.  A wrong one (a
 * rollback, two names with one hash) finds nothing and costs a second probe.
 */
#define ES_HINTS 1024
static struct
{
	uint64		hash;			/* of the stream's name */
	int64		version;		/* 0: nothing known */
}			hints[ES_HINTS];

PG_FUNCTION_INFO_V1(es_category);
PG_FUNCTION_INFO_V1(es_stream_version);

void
EsStreamInit(void)
{
	DefineCustomIntVariable("eventstore.max_stream_locks",
							"Streams and tags that one transaction locks singly.",
							"A transaction that needs more locks out all other appends until it ends. "
							"Raise it together with max_locks_per_transaction; 0 locks out others from the first append on.",
							&max_stream_locks, 64, 0, INT_MAX, PGC_USERSET, 0,
							NULL, NULL, NULL);
}

/* C0, DEL and, in UTF-8, C1: invisible in every log and screen. */
static bool
has_control_character(const char *name, int len)
{
	bool		utf8 = GetDatabaseEncoding() == PG_UTF8;

	for (int i = 0; i < len; i++)
	{
		unsigned char c = (unsigned char) name[i];

		if (c < 0x20 || c == 0x7F)
			return true;
		if (utf8 && c == 0xC2 && i + 1 < len &&
			(unsigned char) name[i + 1] < 0xA0)
			return true;
	}
	return false;
}

/* 42602 or 42622 unless the name has 1 to max bytes and all are fit to print. */
void
EsCheckName(const text *name, int max, const char *what)
{
	const char *data = VARDATA_ANY(name);
	int			len = VARSIZE_ANY_EXHDR(name);

	if (len == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_NAME),
				 errmsg("%s must not be empty", what)));
	if (len > max)
		ereport(ERROR,
				(errcode(ERRCODE_NAME_TOO_LONG),
				 errmsg("%s is too long", what),
				 errdetail("It has %d bytes; the limit is %d.", len, max)));
	if (has_control_character(data, len))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_NAME),
				 errmsg("%s must not contain control characters", what)));
}

static void
check_not_reserved(const text *name, const char *what)
{
	if (*VARDATA_ANY(name) == '$')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_NAME),
				 errmsg("%s must not begin with \"$\"", what),
				 errdetail("Such names are reserved for the store itself.")));
}

/* Would this name have passed, reserved names included? */
bool
EsNameIsValid(const text *name, int max)
{
	int			len = VARSIZE_ANY_EXHDR(name);

	return len > 0 && len <= max && !has_control_character(VARDATA_ANY(name), len);
}

void
EsCheckStreamId(const text *stream_id)
{
	EsCheckName(stream_id, ES_MAX_STREAM_ID, "stream id");
	check_not_reserved(stream_id, "stream id");
}

void
EsCheckEventType(const text *event_type)
{
	EsCheckName(event_type, ES_MAX_EVENT_TYPE, "event type");
	check_not_reserved(event_type, "event type");
}

void
EsCheckTag(const text *tag)
{
	EsCheckName(tag, ES_MAX_TAG, "tag");
}

/* Bytes of the category: all before the first "-". */
int
EsCategoryLength(const char *stream_id, int len)
{
	const char *dash = memchr(stream_id, '-', len);

	return dash == NULL ? len : (int) (dash - stream_id);
}

/*
 * es_category(stream_id text) → text
 */
Datum
es_category(PG_FUNCTION_ARGS)
{
	text	   *stream_id = PG_GETARG_TEXT_PP(0);
	const char *data = VARDATA_ANY(stream_id);

	PG_RETURN_TEXT_P(cstring_to_text_with_len(data,
											  EsCategoryLength(data, VARSIZE_ANY_EXHDR(stream_id))));
}

/* Be counted among the appends that whoever closes the gate waits for. */
void
EsGateEnter(const EsStore *store)
{
	if (ES_BUG != 14)
		LockRelationOid(store->gate, RowExclusiveLock);
}

static uint64
name_hash(const text *name)
{
	return hash_bytes_extended((const unsigned char *) VARDATA_ANY(name),
							   VARSIZE_ANY_EXHDR(name), 0);
}

/*
 * Lock out every other append until this transaction ends.  The lock belongs
 * to the top transaction, so that rolling back to a savepoint cannot leave
 * streams that were appended to before it without a lock.
 */
void
EsGateClose(const EsStore *store)
{
	ResourceOwner saved = CurrentResourceOwner;

	PG_TRY();
	{
		CurrentResourceOwner = TopTransactionResourceOwner;
		LockRelationOid(store->gate, ShareRowExclusiveLock);
	}
	PG_FINALLY();
	{
		CurrentResourceOwner = saved;
	}
	PG_END_TRY();
	gate_lxid = EsCurrentLxid();
}

typedef struct Closing
{
	const EsStore *store;
	int			patience;		/* milliseconds */
} Closing;

/* Close the gate, or fail with 55P03 when patience is at its end. */
static bool
close_gate_within(void *arg)
{
	Closing    *closing = arg;
	char		value[32];
	int			nest_level = NewGUCNestLevel();

	snprintf(value, sizeof(value), "%d", closing->patience);
	(void) set_config_option("lock_timeout", value, PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	EsGateClose(closing->store);
	AtEOXact_GUC(true, nest_level);
	return true;
}

/*
 * Close the gate if that can be done within so many milliseconds.  Whoever
 * waits for it holds up all appends that come later, so one that is under way
 * for long must not be waited for.
 */
bool
EsGateTryClose(const EsStore *store, int patience)
{
	Closing		closing = {.store = store,.patience = patience};
	ErrorData  *error;

	if (EsAttempt(close_gate_within, &closing, &error))
		return true;
	if (error->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE)
		ReThrowError(error);
	FreeErrorData(error);
	return false;
}

/*
 * Close the gate, letting appends pass between one try and the next.  55P03
 * when that does not succeed for long.
 */
void
EsGateCloseGently(const EsStore *store)
{
	for (int tries = 0; tries < 50; tries++)
	{
		if (EsGateTryClose(store, ES_GATE_PATIENCE))
			return;
		CHECK_FOR_INTERRUPTS();
		pg_usleep(100000L);
	}
	ereport(ERROR,
			(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
			 errmsg("could not find a moment without appending transactions"),
			 errhint("End transactions that have appended and stay open, then try again.")));
}

/*
 * Take a stream's lock.
 *
 * On a hot stream each release would hand the lock to the sleeper at the head
 * of the queue, and nothing is done until that one has been woken: a convoy
 * that runs at a third of the speed.  So ask again for some milliseconds
 * before joining the queue: whoever runs when the lock falls free takes it.
 */
static LockAcquireResult
acquire_stream_lock(const LOCKTAG *tag)
{
	for (int i = 0; i < ES_LOCK_TRIES; i++)
	{
		LockAcquireResult result = LockAcquire(tag, ExclusiveLock, false, true);

		if (result != LOCKACQUIRE_NOT_AVAIL)
			return result;
		pg_usleep(1);			/* the timer's slack makes it about 50 us */
		CHECK_FOR_INTERRUPTS();
	}
	return LockAcquire(tag, ExclusiveLock, false, false);
}

EsLockKey
EsLockKeyOf(uint16 kind, const text *name, LOCKMODE mode)
{
	EsLockKey	key = {kind, name_hash(name), mode};

	return key;
}

/* How the lock manager knows the key. */
void
EsLockKeyTag(const EsLockKey *key, LOCKTAG *tag)
{
	SET_LOCKTAG_ADVISORY(*tag, MyDatabaseId, (uint32) (key->hash >> 32),
						 (uint32) key->hash, key->kind);
}

static int
compare_keys(const void *a, const void *b)
{
	const EsLockKey *left = a;
	const EsLockKey *right = b;

	if (left->kind != right->kind)
		return left->kind < right->kind ? -1 : 1;
	return (left->hash > right->hash) - (left->hash < right->hash);
}

/*
 * Sort the keys and make one of those that occur twice; answers how many
 * remain.  Share and RowExclusive on one key become ShareRowExclusive at once:
 * two that took one and then the other would wait for each other.
 */
static int
merge_keys(EsLockKey *keys, int nkeys)
{
	int			kept = 0;

	if (nkeys > 1)
		qsort(keys, nkeys, sizeof(EsLockKey), compare_keys);
	for (int i = 0; i < nkeys; i++)
	{
		if (kept == 0 || compare_keys(&keys[i], &keys[kept - 1]) != 0)
			keys[kept++] = keys[i];
		else if (keys[i].mode != keys[kept - 1].mode && ES_BUG != 67)
			keys[kept - 1].mode = ShareRowExclusiveLock;
	}
	return kept;
}

/* Does this transaction hold the lock, or one that includes it? */
static bool
is_held(const EsLockKey *key)
{
	LOCKTAG		tag;

	EsLockKeyTag(key, &tag);
	return EsLockIsHeld(&tag, key->mode) ||
		(key->kind == ES_LOCK_TAG && EsLockIsHeld(&tag, ShareRowExclusiveLock));
}

/* May this transaction take these locks singly?  Those it has are free. */
static bool
within_budget(const EsLockKey *keys, int nkeys)
{
	int			wanted = 0;

	if (stream_locks <= max_stream_locks - nkeys)
		return true;
	for (int i = 0; i < nkeys; i++)
		wanted += !is_held(&keys[i]);
	return wanted == 0 || stream_locks <= max_stream_locks - wanted;
}

/*
 * Take all locks of one append and enter the gate, until the transaction, or
 * the savepoint in which this was called, ends.  The keys are sorted, so that
 * two appends never wait for each other.  Must come before any position is
 * drawn, or a stream's version order could differ from its position order.
 *
 * A key is a hash of a name: two names that collide wait for each other and
 * nothing worse.
 *
 * The gate comes last.  An append that waits for a stream or a tag must not
 * stand in the gate meanwhile: who holds that may want to close it.
 */
void
EsLockKeys(const EsStore *store, EsLockKey *keys, int nkeys)
{
	LocalTransactionId lxid = EsCurrentLxid();

	if (gate_lxid == lxid)
		return;
	if (counted_lxid != lxid)
	{
		counted_lxid = lxid;
		stream_locks = 0;
	}
	nkeys = merge_keys(keys, nkeys);
	if (!within_budget(keys, nkeys))
	{
		EsGateClose(store);
		return;
	}

	for (int i = 0; i < nkeys; i++)
	{
		LOCKTAG		tag;

		if (ES_BUG == 7 && keys[i].kind == ES_LOCK_STREAM)
			continue;
		EsLockKeyTag(&keys[i], &tag);
		if ((keys[i].kind == ES_LOCK_STREAM ? acquire_stream_lock(&tag) :
			 LockAcquire(&tag, keys[i].mode, false, false)) != LOCKACQUIRE_ALREADY_HELD)
			stream_locks++;
	}
	EsGateEnter(store);
}

/*
 * Take locks on top of those of EsLockKeys, behind the gate, where nobody may
 * be waited for.  False if some of them cannot be had now; the others may
 * have been taken.
 */
bool
EsLockKeysTry(const EsStore *store, EsLockKey *keys, int nkeys)
{
	if (gate_lxid == EsCurrentLxid())
		return true;
	nkeys = merge_keys(keys, nkeys);
	if (!within_budget(keys, nkeys))
		return false;
	for (int i = 0; i < nkeys; i++)
	{
		LOCKTAG		tag;

		if (is_held(&keys[i]))
			continue;
		EsLockKeyTag(&keys[i], &tag);
		if (LockAcquire(&tag, keys[i].mode, false, true) == LOCKACQUIRE_NOT_AVAIL)
			return false;
		stream_locks++;
	}
	return true;
}

/* EsLockKeys for an append to one stream, without tags. */
void
EsStreamLock(const EsStore *store, const text *stream_id)
{
	EsLockKey	key = EsLockKeyOf(ES_LOCK_STREAM, stream_id, ExclusiveLock);

	EsLockKeys(store, &key, 1);
}

/*
 * Read the stream's last event that the snapshot sees into the slot, if it is
 * in es_event and its version is at least from.
 */
static bool
last_event(Relation event, Relation stream_key, text *stream_id, int64 from,
		   Snapshot snapshot, TupleTableSlot *slot)
{
	IndexScanDesc scan;
	ScanKeyData keys[2];
	int			nkeys = from > 0 ? 2 : 1;
	bool		found;

	ScanKeyEntryInitialize(&keys[0], 0, 1, BTEqualStrategyNumber, InvalidOid,
						   C_COLLATION_OID, F_TEXTEQ,
						   PointerGetDatum(stream_id));
	ScanKeyInit(&keys[1], 2, BTGreaterEqualStrategyNumber, F_INT8GE,
				Int64GetDatum(from));
	scan = EsIndexBeginScan(event, stream_key, snapshot, nkeys);
	index_rescan(scan, keys, nkeys, NULL, 0);
	found = index_getnext_slot(scan, BackwardScanDirection, slot);
	index_endscan(scan);
	return found;
}

/* The same from the version on that this session knows of. */
static bool
last_event_hinted(Relation event, Relation stream_key, text *stream_id,
				  Snapshot snapshot, TupleTableSlot *slot)
{
	uint64		hash = name_hash(stream_id);
	int64		from = hints[hash % ES_HINTS].hash == hash ? hints[hash % ES_HINTS].version : 0;

	return (from > 0 && last_event(event, stream_key, stream_id, from, snapshot, slot)) ||
		last_event(event, stream_key, stream_id, 0, snapshot, slot);
}

/* Remember where the stream will be found. */
void
EsStreamHint(const text *stream_id, int64 version)
{
	uint64		hash = name_hash(stream_id);

	hints[hash % ES_HINTS].hash = hash;
	hints[hash % ES_HINTS].version = version;
}

static EsStreamHead
head_of_slot(TupleTableSlot *slot)
{
	EsStreamHead head;
	bool		isnull;

	head.version = DatumGetInt64(slot_getattr(slot, ES_EVENT_VERSION, &isnull));
	head.recorded_at = DatumGetTimestampTz(slot_getattr(slot, ES_EVENT_RECORDED_AT,
														&isnull));
	return head;
}

/* Where the stream stands as of the snapshot. */
EsStreamHead
EsStreamHeadRead(Relation event, text *stream_id, Snapshot snapshot)
{
	EsScan	   *scan = EsScanStream(event, snapshot, stream_id, 1, PG_INT64_MAX,
									BackwardScanDirection);
	TupleTableSlot *slot = EsScanNext(scan);
	EsStreamHead head = {0, 0};

	if (slot != NULL)
		head = head_of_slot(slot);
	EsScanEnd(scan);
	return head;
}

/* The event of a version, as the snapshot sees it; false if there is none. */
bool
EsStreamEventRead(Relation event, text *stream_id, int64 version,
				  Snapshot snapshot, EsEventKey *found)
{
	EsScan	   *scan = EsScanStream(event, snapshot, stream_id, version, version,
									ForwardScanDirection);
	TupleTableSlot *slot = EsScanNext(scan);
	bool		isnull;

	if (slot != NULL)
	{
		found->recorded_at = DatumGetTimestampTz(slot_getattr(slot, ES_EVENT_RECORDED_AT,
															  &isnull));
		found->event_id = *DatumGetUUIDP(slot_getattr(slot, ES_EVENT_EVENT_ID,
													  &isnull));
	}
	EsScanEnd(scan);
	return slot != NULL;
}

/* Did the event in the slot commit after this transaction's snapshot? */
static bool
is_after_xact_snapshot(Relation event, TupleTableSlot *slot)
{
	return IsolationUsesXactSnapshot() && !EsScanIsOwn(slot) &&
		!EsScanIsSeen(event, slot, GetTransactionSnapshot());
}

/*
 * Where the stream stands, by its last event.  40001 in REPEATABLE READ and
 * SERIALIZABLE when it moved past the transaction's snapshot: what the caller
 * decided on is no longer true.
 */
static EsStreamHead
checked_head(Relation event, text *stream_id, TupleTableSlot *slot)
{
	EsStreamHead head = head_of_slot(slot);

	if (ES_BUG == 10 || !is_after_xact_snapshot(event, slot))
		return head;
	EsStatCount(ES_COUNT_CONFLICTS, 1);
	EsRowSecurityHide(event, stream_id);
	ereport(ERROR,
			(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			 errmsg("could not append to stream \"%s\" due to concurrent append",
					text_to_cstring(stream_id)),
			 errdetail("The stream is at version " INT64_FORMAT ", newer than this transaction's snapshot.",
					   head.version),
			 errhint("Roll back, read the stream again and decide again."),
			 err_generic_string(PG_DIAG_CONSTRAINT_NAME,
								"es_expected_version")));
	return head;				/* not reached */
}

/* The same for a stream that has no events in es_event; asked after that. */
static EsStreamHead
archived_head(Relation event, text *stream_id)
{
	Snapshot	snapshot = RegisterSnapshot(GetCatalogSnapshot(EsStoreGet()->archive_segment));
	EsArchiveRead *read = EsArchiveReadStream(RelationGetDescr(event), snapshot,
											  stream_id, 1, PG_INT64_MAX,
											  BackwardScanDirection);
	TupleTableSlot *slot = EsArchiveReadNext(read);
	EsStreamHead head = {0, 0};

	if (slot != NULL)
		head = checked_head(event, stream_id, slot);
	EsArchiveReadEnd(read);
	UnregisterSnapshot(snapshot);
	return head;
}

/*
 * Where the stream stands for an append: all that is committed by now and
 * all that this transaction wrote, the running command included, which only
 * SnapshotSelf shows.  The caller holds the stream's lock, so no other
 * transaction can add to it meanwhile.
 */
EsStreamHead
EsStreamHeadForAppend(Relation event, Relation stream_key, text *stream_id)
{
	TupleTableSlot *slot = table_slot_create(event, NULL);
	Snapshot	snapshot = ES_BUG == 9 ? GetActiveSnapshot() : SnapshotSelf;
	EsStreamHead head = {0, 0};

	if (last_event_hinted(event, stream_key, stream_id, snapshot, slot))
		head = checked_head(event, stream_id, slot);
	else if (!EsArchiveIsEmpty())
		head = archived_head(event, stream_id);
	ExecDropSingleTupleTableSlot(slot);
	return head;
}

/*
 * es_stream_version(stream_id text) → bigint
 */
Datum
es_stream_version(PG_FUNCTION_ARGS)
{
	const EsStore *store;
	Relation	event;
	EsStreamHead head;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"%s\" must not be null", "stream_id")));
	event = EsEventOpen(&store, AccessShareLock);
	EsCheckPrivilege(event, ACL_SELECT);
	head = EsStreamHeadRead(event, PG_GETARG_TEXT_PP(0), GetActiveSnapshot());
	table_close(event, AccessShareLock);
	PG_RETURN_INT64(head.version);
}
