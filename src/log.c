/*
 * log.c: the global order, and reading along it without missing an event.
 *
 * THE PROBLEM.  Positions come from a sequence, so they are handed out in one
 * order and become visible in another: a transaction that drew 7 may commit
 * after the one that drew 8.  A reader who saw 8 and goes on from there never
 * sees 7.  Nor can it wait for 7 by the clock, because 7 may have been rolled
 * back and never come, or come after any time-out.
 *
 * THE PROTOCOL.
 *
 * 1. Before a transaction draws its first position it announces a lower
 *    bound.  It looks at the last position L that the sequence handed out
 *    (0 before the first) and takes a heavyweight lock whose key is L.  All
 *    it will ever draw is greater than L.  The lock goes when the transaction
 *    ends: the server releases locks after it made the transaction's rows
 *    visible (or dead), on commit, on abort, at a crash, and at COMMIT
 *    PREPARED.  It belongs to the top transaction's resource owner, so a
 *    rollback to a savepoint does not release it.  The first announcement
 *    bounds all later ones, so there is one a transaction.
 *
 * 2. A reader walks the position index with its own snapshot.  As long as
 *    positions follow one another without a hole there is nothing to ask:
 *    whatever comes between two neighbours does not exist.
 *
 * 3. At a hole, positions h1..h2 that its snapshot does not show, it first
 *    asks the lock manager for the lowest announcement A in this database.
 *    Whoever may still fill a hole drew that position before the reader met
 *    the event behind it, hence announced before, with L < h, and has not
 *    ended.  So if A >= h2 nobody can fill the hole any more.  A transaction
 *    that announces after the question draws above every position drawn
 *    before it, so it cannot fill that hole either.  If A < h2 the read ends
 *    here; it goes on when the reader comes back.
 *
 * 4. Then, and in this order, it looks a second time, with a dirty snapshot:
 *    a writer may have put its event into the hole and committed between the
 *    first look and the question.  If something living is there, the
 *    reader's snapshot is too old to be shown it, and the read ends.  If not,
 *    the hole is a hole for ever, and the reader passes.
 *
 * WHY THE ANSWER IS ONE INSTANT.  GetLockStatusData() holds all partitions
 * of the lock table at once.  Our locks are not relation locks, so they never
 * hide in a backend's fast-path slots.  Prepared transactions are listed too,
 * with pid 0: never join this list with anything on the pid.
 *
 * The reader leaves its own announcement out, since its own holes are
 * decided.  An isolation level enters nowhere but in "its own snapshot": in
 * REPEATABLE READ the read ends at the first event that committed after the
 * snapshot, wherever in the order that is.
 *
 * THE SETTLED POSITION is the smaller of the last position handed out (read
 * first) and the lowest announcement (asked second): nothing at or below it
 * can still appear.  Written down in es_settled it becomes an ordinary row
 * that travels to standbys and logical replicas.  Whoever sees the row sees
 * every event at or below it, because those committed earlier.  On a standby
 * or replica the lock manager knows nothing of the origin, so there a hole is
 * passed only at or below the position written down.
 *
 * DURABILITY.  With synchronous_commit = off an event is visible before its
 * commit record is on disk.  If a crash took back an event that a subscriber
 * has seen, its position would be handed out again and the subscriber would
 * miss the new one.  So a reader flushes WAL up to the newest commit it is
 * about to show, and whoever is told a settled position has the sequence's
 * own WAL record flushed first.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "commands/sequence.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "archive.h"
#include "compat.h"
#include "log.h"
#include "point.h"
#include "scan.h"
#include "stream.h"

/* Raw rows this far beyond the sequence move it at once, not step by step. */
#define ES_SEQUENCE_JUMP 1000

struct EsLogReader
{
	Relation	event;			/* es_event, opened by the caller */
	const EsStore *store;
	EsScan	   *scan;			/* along positions, from the start on */
	Snapshot	snapshot;		/* what the reader is shown */
	int64		passed;			/* all at or below is delivered, or decided */
	int64		settled;		/* holes up to here need no further question */
	bool		asked;			/* have we met a hole yet? */
	bool		follows;		/* then: do events come from another server? */
	XLogRecPtr	flushed;		/* WAL known to be on disk */
	XLogRecPtr	needed;			/* WAL that must be, before rows are shown */
	bool		ended;			/* nothing more can be shown this time */
};

/* The transaction that has announced, by its local id, and how low. */
static LocalTransactionId announced_lxid = InvalidLocalTransactionId;
static int64 announced_bound = 0;

PG_FUNCTION_INFO_V1(es_settled_position);
PG_FUNCTION_INFO_V1(es_settle);
PG_FUNCTION_INFO_V1(es_position_at);

/*
 * The last position that the sequence handed out, 0 before the first.  If
 * lsn is given it is set to the WAL that makes this durable.
 */
int64
EsLastDrawn(const EsStore *store, XLogRecPtr *lsn)
{
	/* nextval's mode, so that one lock serves both; a standby has no nextval */
	Relation	rel = relation_open(store->position_seq,
									RecoveryInProgress() ? AccessShareLock : RowExclusiveLock);
	Buffer		buffer = ReadBuffer(rel, 0);
	Page		page;
	HeapTupleData tuple;
	Form_pg_sequence_data data;
	int64		last;

	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	page = BufferGetPage(buffer);
	tuple.t_data = (HeapTupleHeader) PageGetItem(page, PageGetItemId(page, FirstOffsetNumber));
	data = (Form_pg_sequence_data) GETSTRUCT(&tuple);
	last = data->is_called ? data->last_value : data->last_value - 1;
	if (lsn != NULL)
		*lsn = PageGetLSN(page);
	UnlockReleaseBuffer(buffer);
	relation_close(rel, NoLock);	/* kept to commit, like nextval's */
	return last;
}

/* Take the announcement lock for the top transaction. */
static void
lock_announcement(int64 bound)
{
	ResourceOwner saved = CurrentResourceOwner;
	LOCKTAG		tag;

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, (uint32) ((uint64) bound >> 32),
						 (uint32) bound, ES_LOCK_ANNOUNCEMENT);
	PG_TRY();
	{
		if (ES_BUG != 3)
			CurrentResourceOwner = TopTransactionResourceOwner;
		(void) LockAcquire(&tag, ShareLock, ES_BUG == 110, false);
	}
	PG_FINALLY();
	{
		CurrentResourceOwner = saved;
	}
	PG_END_TRY();
}

/* Announce this transaction's lower bound, once (step 1). */
void
EsAnnounce(const EsStore *store)
{
	if (announced_lxid == EsCurrentLxid())
		return;
	announced_bound = EsLastDrawn(store, NULL);
	lock_announcement(announced_bound);
	announced_lxid = EsCurrentLxid();
}

/* The last transaction of this session that announced, by its local id. */
LocalTransactionId
EsAnnouncedLxid(void)
{
	return announced_lxid;
}

/* The bound that it announced. */
int64
EsAnnouncedBound(void)
{
	return announced_bound;
}

#if ES_BUG == 2
/* Seeded bug: each draw announces anew and forgets the older bound. */
static int64 newest_bound;

static void
announce_newest(const EsStore *store)
{
	int64		bound = EsLastDrawn(store, NULL);
	bool		again = announced_lxid == EsCurrentLxid();
	LOCKTAG		tag;

	if (again && bound == newest_bound)
		return;
	lock_announcement(bound);
	if (again)
	{
		ResourceOwner saved = CurrentResourceOwner;

		SET_LOCKTAG_ADVISORY(tag, MyDatabaseId,
							 (uint32) ((uint64) newest_bound >> 32),
							 (uint32) newest_bound, ES_LOCK_ANNOUNCEMENT);
		CurrentResourceOwner = TopTransactionResourceOwner;
		(void) LockRelease(&tag, ShareLock, false);
		CurrentResourceOwner = saved;
	}
	newest_bound = bound;
	announced_lxid = EsCurrentLxid();
}
#endif

/*
 * Draw the next position.  The caller holds the streams' locks, and inserts
 * what it drew before it reads the log again.
 */
int64
EsDrawPosition(const EsStore *store)
{
	int64		position;

	EsPoint("before-draw");
#if ES_BUG == 1
	position = nextval_internal(store->position_seq, false);
	EsAnnounce(store);
#elif ES_BUG == 2
	announce_newest(store);
	position = nextval_internal(store->position_seq, false);
#else
	EsAnnounce(store);
	position = nextval_internal(store->position_seq, false);
#endif
	return position;
}

/*
 * Make way for a row that arrives with its position set: announce a bound
 * below it, and bring the sequence to at least there.  Never moves it back.
 */
void
EsPassPosition(const EsStore *store, int64 position)
{
	int64		last;

	EsAnnounce(store);
	if (position <= announced_bound)
	{
		/* whatever else is to come; one lock for all of them */
		announced_bound = 0;
		lock_announcement(announced_bound);
	}
	last = EsLastDrawn(store, NULL);
	if (position - last > ES_SEQUENCE_JUMP)
	{
		/* setval is no atomic maximum: nobody may draw meanwhile */
		EsGateClose(store);
		if (position > EsLastDrawn(store, NULL))
			DirectFunctionCall2(setval_oid,
								ObjectIdGetDatum(store->position_seq),
								Int64GetDatum(position));
		return;
	}
	EsGateEnter(store);
	while (last < position)
		last = nextval_internal(store->position_seq, false);
}

static bool
is_holder(const LockInstanceData *held, const VirtualTransactionId *holders, int n)
{
	VirtualTransactionId vxid = EsLockVxid(held);

	for (int i = 0; i < n; i++)
		if (VirtualTransactionIdEquals(holders[i], vxid))
			return true;
	return false;
}

/*
 * The lowest bound that any other transaction of this database announced, or
 * PG_INT64_MAX (step 3).  Of all transactions, or of the holders only.
 */
static int64
lowest_announced(const VirtualTransactionId *holders, int nholders)
{
	LockData   *locks = GetLockStatusData();
	int64		lowest = PG_INT64_MAX;

	for (int i = 0; i < locks->nelements; i++)
	{
		LockInstanceData *held = &locks->locks[i];
		int64		bound;

		if (held->locktag.locktag_type != LOCKTAG_ADVISORY ||
			held->locktag.locktag_field4 != ES_LOCK_ANNOUNCEMENT ||
			held->locktag.locktag_field1 != MyDatabaseId ||
			held->holdMask == 0 || held->pid == MyProcPid)
			continue;
		if (ES_BUG == 11 && held->pid == 0)
			continue;
		if (holders != NULL && !is_holder(held, holders, nholders))
			continue;
		bound = (int64) (((uint64) held->locktag.locktag_field2 << 32) |
						 held->locktag.locktag_field3);
		lowest = Min(lowest, bound);
	}
	pfree(locks->locks);
	pfree(locks);
	return ES_BUG == 4 ? PG_INT64_MAX : lowest;
}

/*
 * The lowest bound that one of these transactions announced; PG_INT64_MAX
 * when none of those that still run has.
 */
int64
EsLowestAnnouncedBy(const VirtualTransactionId *holders, int n)
{
	return lowest_announced(holders, n);
}

/*
 * The settled position at this instant.  The sequence is read first: what is
 * drawn between the two looks is then above the answer.
 */
int64
EsSettledNow(const EsStore *store, XLogRecPtr *lsn)
{
	int64		lowest = ES_BUG == 13 ? lowest_announced(NULL, 0) : PG_INT64_MAX;
	int64		last = EsLastDrawn(store, lsn);

	EsPoint("settled-between");
	if (ES_BUG == 13)
		last = EsLastDrawn(store, lsn);
	else
		lowest = lowest_announced(NULL, 0);
	return Min(last, lowest);
}

/*
 * The snapshot for reading along the log: the newest one where the isolation
 * level allows it, so that a loop in one statement makes progress.
 */
Snapshot
EsLogSnapshot(void)
{
	if (IsolationUsesXactSnapshot() || IsInParallelMode())
		return GetActiveSnapshot();
	return GetLatestSnapshot();
}

/*
 * Begin to walk the log behind from_position.  The snapshot must stay
 * registered or active until EsLogReaderEnd.  Allocates in the current
 * memory context.
 */
EsLogReader *
EsLogReaderBegin(Relation event, const EsStore *store, Snapshot snapshot,
				 int64 from_position)
{
	EsLogReader *reader = palloc0(sizeof(EsLogReader));

	reader->event = event;
	reader->store = store;
	reader->snapshot = snapshot;
	reader->passed = from_position;
	reader->flushed = RecoveryInProgress() ? PG_UINT64_MAX : GetFlushRecPtr(NULL);
	reader->scan = EsScanPositions(event, snapshot,
								   Min(from_position, PG_INT64_MAX - 1) + 1,
								   PG_INT64_MAX, ForwardScanDirection);
	return reader;
}

/* The second look (step 4): is anything alive at first..last? */
static bool
hole_is_empty(EsLogReader *reader, int64 first, int64 last)
{
	SnapshotData dirty;
	EsScan	   *scan;
	TupleTableSlot *slot;
	bool		found;

	InitDirtySnapshot(dirty);
	scan = EsScanPositions(reader->event, &dirty, first, last, ForwardScanDirection);
	slot = EsScanNext(scan);
	found = slot != NULL && !(ES_BUG == 83 && EsScanIsArchived(slot));
	EsScanEnd(scan);
	return !found;
}

/* Is the hole first..last, behind which an event was met, one for ever? */
static bool
hole_is_settled(EsLogReader *reader, int64 first, int64 last)
{
	if (!reader->asked)
	{
		reader->asked = true;
		reader->follows = EsFollowsOrigin(reader->store);
		if (reader->follows)
			reader->settled = EsSettledRead(reader->snapshot);
	}
	if (reader->follows)
		return last <= reader->settled;
	if (ES_BUG == 12 && !hole_is_empty(reader, first, last))
		return false;
	EsPoint("reader-at-hole");
	if (last > reader->settled)
	{
		reader->settled = EsSettledNow(reader->store, NULL);
		if (last > reader->settled)
			return false;
	}
	return ES_BUG == 6 || ES_BUG == 12 || hole_is_empty(reader, first, last);
}

/*
 * Note up to where WAL must be flushed before the event in the slot may be
 * shown; flushed is known to be on disk already.
 *
 * A committed hint on a page whose last change is on disk implies that the
 * commit is on disk too: the hint is set when the commit is flushed, or when
 * the page itself waits for WAL beyond it.  That settles all but the tail of
 * the log without a look at the commit log.
 *
 * What is archived was flushed before it was moved.
 */
void
EsNoteDurability(TupleTableSlot *slot, XLogRecPtr flushed, XLogRecPtr *needed)
{
	BufferHeapTupleTableSlot *buffered = (BufferHeapTupleTableSlot *) slot;
	HeapTupleHeader tuple;
	XLogRecPtr	page_lsn;
	TransactionId xmin;

	if (EsScanIsArchived(slot))
		return;
	tuple = buffered->base.tuple->t_data;
	page_lsn = BufferGetLSNAtomic(buffered->buffer);
	if (HeapTupleHeaderXminCommitted(tuple) && page_lsn <= flushed)
		return;
	if (HeapTupleHeaderXminFrozen(tuple))
	{
		*needed = Max(*needed, page_lsn);
		return;
	}
	xmin = HeapTupleHeaderGetRawXmin(tuple);
	if (!TransactionIdIsCurrentTransactionId(xmin))
		*needed = Max(*needed, TransactionIdGetCommitLSN(xmin));
}

/*
 * The next event in position order, or NULL when there is none that may be
 * shown yet.  The slot is the reader's, of es_event or from the archive, and is good until the next call.
 */
TupleTableSlot *
EsLogReaderNext(EsLogReader *reader)
{
	TupleTableSlot *slot;
	int64		position;
	bool		isnull;

	if (reader->ended)
		return NULL;
	slot = EsScanNext(reader->scan);
	if (slot == NULL)
	{
		reader->ended = true;
		return NULL;
	}
	position = DatumGetInt64(slot_getattr(slot, ES_EVENT_POSITION, &isnull));
	/* what is archived was settled, holes included */
	if (!EsScanIsArchived(slot) && position > reader->passed + 1 &&
		!hole_is_settled(reader, reader->passed + 1, position - 1))
	{
		reader->ended = true;
		return NULL;
	}
	reader->passed = position;
	if (reader->flushed != PG_UINT64_MAX)
		EsNoteDurability(slot, reader->flushed, &reader->needed);
	return slot;
}

/* Where the walk stands: nothing at or below it will still be shown. */
int64
EsLogReaderPosition(const EsLogReader *reader)
{
	return reader->passed;
}

/* End the walk and make durable what it showed. */
void
EsLogReaderEnd(EsLogReader *reader)
{
	if (ES_BUG != 8 && reader->needed > reader->flushed)
		XLogFlush(reader->needed);
	EsScanEnd(reader->scan);
	pfree(reader);
}

/*
 * The settled position as this snapshot may use it: one that did not see all
 * up to today's must be told how far its own sight goes.  The walk starts at
 * the position written down, so it is short where one is kept.
 */
int64
EsSettledForSnapshot(Relation event, const EsStore *store, Snapshot snapshot)
{
	EsLogReader *reader = EsLogReaderBegin(event, store, snapshot,
										   EsSettledRead(snapshot));
	int64		position;

	while (EsLogReaderNext(reader) != NULL)
		;
	position = EsLogReaderPosition(reader);
	EsLogReaderEnd(reader);
	return position;
}

/*
 * What would be settled for somebody who cannot ask the lock manager: all up
 * to the first hole above the position that was written down.
 */
int64
EsSettledByHoles(Relation event, const EsStore *store, Snapshot snapshot)
{
	int64		written = EsSettledRead(snapshot);
	EsLogReader *reader = EsLogReaderBegin(event, store, snapshot, written);
	int64		position;

	reader->asked = true;
	reader->follows = true;
	reader->settled = written;
	while (EsLogReaderNext(reader) != NULL)
		;
	position = EsLogReaderPosition(reader);
	EsLogReaderEnd(reader);
	return position;
}

/* The settled position for this caller, made durable. */
int64
EsSettledPosition(Relation event, const EsStore *store)
{
	XLogRecPtr	lsn;
	int64		position;

	if (EsFollowsOrigin(store))
		return EsSettledRead(GetActiveSnapshot());
	if (IsolationUsesXactSnapshot())
		return EsSettledForSnapshot(event, store, GetActiveSnapshot());
	position = EsSettledNow(store, &lsn);
	if (ES_BUG != 113)
		XLogFlush(lsn);
	return position;
}

/*
 * es_settled_position() → bigint
 */
Datum
es_settled_position(PG_FUNCTION_ARGS)
{
	const EsStore *store;
	Relation	event = EsEventOpen(&store, AccessShareLock);
	int64		position;

	EsCheckPrivilege(event, ACL_SELECT);
	position = EsSettledPosition(event, store);
	table_close(event, AccessShareLock);
	PG_RETURN_INT64(position);
}

/*
 * es_settle() → bigint: write the settled position down, and answer it.
 *
 * Right at every isolation level: all events at or below it are committed,
 * or this transaction's own, before the row is.
 */
Datum
es_settle(PG_FUNCTION_ARGS)
{
	const EsStore *store = EsStoreGet();
	char	   *schema = get_namespace_name(store->schema);
	Oid			types[1] = {INT8OID};
	Datum		values[1];
	XLogRecPtr	lsn;
	char	   *query;

	EsRequireReadWrite("es_settle()");
	if (EsFollowsOrigin(store))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot settle a store that is replicated from another"),
				 errhint("Call es_settle() where the events are appended.")));
	values[0] = Int64GetDatum(EsSettledNow(store, &lsn));
	XLogFlush(lsn);				/* others take it from the row without asking */
	query = psprintf("INSERT INTO %s.es_settled AS s (position) VALUES ($1) "
					 "ON CONFLICT (singleton) DO UPDATE "
					 "SET position = EXCLUDED.position, written_at = EXCLUDED.written_at "
					 "WHERE s.position OPERATOR(pg_catalog.<) EXCLUDED.position",
					 quote_identifier(schema));
	SPI_connect();
	if (SPI_execute_with_args(query, 1, types, values, NULL, false, 0) < 0)
		elog(ERROR, "could not write down the settled position");
	SPI_finish();
	PG_RETURN_DATUM(values[0]);
}

/*
 * The first event at or behind a position, as the snapshot sees it: its
 * position and time.  False when there is none.
 */
static bool
event_at_or_behind(Relation event, Snapshot snapshot, int64 *position,
				   TimestampTz *recorded_at)
{
	EsScan	   *scan = EsScanPositions(event, snapshot, *position, PG_INT64_MAX,
									   ForwardScanDirection);
	TupleTableSlot *slot = EsScanNext(scan);
	bool		isnull;

	if (slot != NULL)
	{
		*position = DatumGetInt64(slot_getattr(slot, ES_EVENT_POSITION, &isnull));
		*recorded_at = DatumGetTimestampTz(slot_getattr(slot, ES_EVENT_RECORDED_AT,
														&isnull));
	}
	EsScanEnd(scan);
	return slot != NULL;
}

/* The last segment whose first event was recorded by then; false if none was. */
static bool
last_segment_by(Snapshot snapshot, TimestampTz at, EsArchiveSegment *segment)
{
	int64		low = 0;
	int64		high = EsArchiveLastSegment(snapshot);

	while (low < high)
	{
		int64		middle = low + (high - low) / 2 + 1;

		if (EsArchiveFindSegment(middle, snapshot, segment) &&
			segment->first_recorded_at <= at)
			low = middle;
		else
			high = middle - 1;
	}
	return low > 0 && EsArchiveFindSegment(low, snapshot, segment);
}

/* The same question among archived events: one segment has the answer. */
static int64
last_archived_by(Relation event, Snapshot snapshot, TimestampTz at)
{
	EsArchiveSegment segment;
	TupleTableSlot *slot;
	EsScan	   *scan;
	int64		position = 0;
	bool		isnull;

	if (!last_segment_by(snapshot, at, &segment))
		return 0;
	scan = EsScanPositions(event, snapshot, segment.first_position,
						   segment.last_position, ForwardScanDirection);
	while ((slot = EsScanNext(scan)) != NULL)
		if (DatumGetTimestampTz(slot_getattr(slot, ES_EVENT_RECORDED_AT, &isnull)) <= at)
			position = DatumGetInt64(slot_getattr(slot, ES_EVENT_POSITION, &isnull));
	EsScanEnd(scan);
	return position;
}

/*
 * The last position recorded at or before a time, by halving the log.  The
 * times of neighbours may be microseconds out of order, and more if the
 * clock was set back; the answer is then one of the places where an event
 * recorded in time is followed by one recorded later.
 */
int64
EsPositionBy(Relation event, const EsStore *store, Snapshot snapshot,
			 TimestampTz at)
{
	int64		border = EsArchiveLastPosition(snapshot);
	int64		low = border;
	int64		high = EsLastDrawn(store, NULL);

	while (low < high)
	{
		int64		middle = low + (high - low) / 2 + 1;
		int64		position = middle;
		TimestampTz recorded_at;

		if (event_at_or_behind(event, snapshot, &position, &recorded_at) &&
			recorded_at <= at)
			low = position;
		else
			high = middle - 1;
	}
	return low > border ? low : last_archived_by(event, snapshot, at);
}

/*
 * es_position_at(at timestamptz) → bigint
 */
Datum
es_position_at(PG_FUNCTION_ARGS)
{
	const EsStore *store;
	Relation	event;
	int64		settled;
	int64		position;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"%s\" must not be null", "at")));
	event = EsEventOpen(&store, AccessShareLock);
	EsCheckPrivilege(event, ACL_SELECT);
	settled = EsSettledPosition(event, store);
	PushActiveSnapshot(EsLogSnapshot());
	position = EsPositionBy(event, store, GetActiveSnapshot(),
							PG_GETARG_TIMESTAMPTZ(0));
	PopActiveSnapshot();
	table_close(event, AccessShareLock);

	/* one that goes on from here must not pass an event still to appear */
	PG_RETURN_INT64(Min(position, settled));
}
