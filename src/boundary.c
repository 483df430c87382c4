/*
 * boundary.c: the events that match a query, whatever streams they are in: how
 * to read them, and how to know that no others come.
 *
 * THE CHECK.  es_append_if takes its locks, then looks for matching events
 * behind "after" with SnapshotSelf, which shows what is committed by now and
 * what this transaction wrote, at every isolation level.  No snapshot taken
 * before the locks would do: the event that breaks the condition may have
 * been committed while we waited for them.
 *
 * THE LOCKS.  An event that an item with tags matches has all of them, and
 * its append takes each in RowExclusive mode (tag.c).  So Share on any one of
 * the item's tags keeps new matches away.  It is the tag that was used longest
 * ago: of a course and its tenant, the course.  Whoever appends to what it
 * checks has both modes in one.  An item without tags would have every append
 * lock its event's type; instead, the few that ask such questions shut the
 * gate.  All locks come before the first position is drawn.
 *
 * THE POSITION TO GO BY.  "after" says that every match up to there is known.
 * The last position handed out will not do: a match below it may still be
 * uncommitted.  Nor is the settled position good enough, which waits for
 * every append, and would make conflicts of events that are long committed.
 * So the question of log.c is asked about those transactions only that hold
 * one of the tags for an append, or the gate shut:
 *
 *	1. read L, the last position handed out;
 *	2. ask who holds a tag of the query in a mode of appends;
 *	3. of those, ask for the lowest announcement A;
 *	4. then look for matches up to min(L, A).
 *
 * A transaction that takes a tag after 2 draws above L.  One that held it
 * then, and had not announced by 3, announces a bound of at least L.  One that
 * ended before 3 did so before the look at 4.  The rest is bounded by A.
 * Nobody waits for anybody.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"

#include "boundary.h"
#include "compat.h"
#include "log.h"
#include "point.h"
#include "scan.h"
#include "stat.h"
#include "tag.h"
#include "upcast.h"

/* ----- locks ----- */

/* Of an item's tags the one that was used longest ago, or never. */
static text *
quietest_tag(const EsBoundaryItem *item)
{
	text	   *quietest = item->tags[0];
	int64		oldest = PG_INT64_MAX;

	for (int i = 0; i < item->ntags && item->ntags > 1; i++)
	{
		int64		position = EsTagLastPosition(item->tags[i]);

		if (position < oldest)
		{
			oldest = position;
			quietest = item->tags[i];
		}
	}
	return quietest;
}

/*
 * Write the keys that keep new matches away, one for each item with tags;
 * answers how many.  There must be room for as many as there are items.
 */
int
EsBoundaryAddKeys(const EsBoundary *query, EsLockKey *keys)
{
	int			nkeys = 0;

	for (int i = 0; i < query->nitems; i++)
		if (query->items[i].ntags > 0)
			keys[nkeys++] = EsLockKeyOf(ES_LOCK_TAG, quietest_tag(&query->items[i]),
										ShareLock);
	return nkeys;
}

/* ----- the position to go by, and reading up to it ----- */

/* Transactions, each once or several times. */
typedef struct Holders
{
	VirtualTransactionId *vxids;
	int			n;
} Holders;

static void
add_holders(Holders *holders, const VirtualTransactionId *vxids, int n)
{
	if (n == 0)
		return;
	holders->vxids = holders->vxids == NULL ?
		palloc(n * sizeof(VirtualTransactionId)) :
		repalloc(holders->vxids, (holders->n + n) * sizeof(VirtualTransactionId));
	memcpy(holders->vxids + holders->n, vxids, n * sizeof(VirtualTransactionId));
	holders->n += n;
}

/* Who may be appending an event that the item matches?  It has tags. */
static void
add_appenders(Holders *holders, const EsBoundaryItem *item)
{
	VirtualTransactionId *fewest = NULL;
	int			n = 0;

	for (int i = 0; i < item->ntags && (i == 0 || n > 0); i++)
	{
		EsLockKey	key = EsLockKeyOf(ES_LOCK_TAG, item->tags[i], ShareLock);
		VirtualTransactionId *vxids;
		LOCKTAG		tag;
		int			count;

		EsLockKeyTag(&key, &tag);
		vxids = GetLockConflicts(&tag, ShareLock, &count);
		if (i == 0 || count < n)
		{
			fewest = vxids;
			n = count;
		}
	}
	add_holders(holders, fewest, n);
}

/*
 * The position up to which no event that matches can still appear, and the
 * WAL that makes it durable (steps 1 to 3).
 */
static int64
query_settled(Relation event, const EsStore *store, const EsBoundary *query,
			  XLogRecPtr *lsn)
{
	Holders		holders = {NULL, 0};
	VirtualTransactionId *vxids;
	LOCKTAG		gate;
	int64		last;
	int64		lowest;
	int			n;

	EsPoint("boundary-ask");
	*lsn = InvalidXLogRecPtr;
	if (EsFollowsOrigin(store))
		return EsSettledForSnapshot(event, store, GetActiveSnapshot());
	if (query->broad)
		return EsSettledNow(store, lsn);

	last = EsLastDrawn(store, lsn);
	for (int i = 0; i < query->nitems; i++)
		add_appenders(&holders, &query->items[i]);
	SET_LOCKTAG_RELATION(gate, MyDatabaseId, store->gate);
	vxids = GetLockConflicts(&gate, RowExclusiveLock, &n);
	if (ES_BUG != 66)
		add_holders(&holders, vxids, n);
	EsPoint("boundary-asked");
	if (holders.n == 0 || ES_BUG == 64)
		return last;
	lowest = EsLowestAnnouncedBy(holders.vxids, holders.n); /* asked once: Min would ask twice */
	return Min(last, lowest);
}

/*
 * Up to where does the transaction's snapshot show all that matches?  Not up
 * to last when some of it was committed, or written by the running command,
 * after the snapshot.
 */
static int64
seen_up_to(Relation event, const EsStore *store, const EsBoundary *query,
		   int64 first, int64 last)
{
	EsMatchScan *scan = EsMatchBegin(event, store, query, SnapshotSelf, first,
									 last, ForwardScanDirection);
	TupleTableSlot *slot;
	int64		position;

	while ((slot = EsMatchNext(scan, &position, NULL)) != NULL)
		if (!EsScanIsSeen(event, slot, GetActiveSnapshot()))
		{
			last = position - 1;
			break;
		}
	EsMatchEnd(scan);
	return last;
}

/*
 * Read the events of the range that match, and make durable what is handed
 * out.  What matches is decided by what is stored, what is handed out is its
 * newest form, unless it is wanted raw.  Answers the position, no later than the range's end, up to
 * which there can be no others.
 *
 * Below that position nothing of others can appear or vanish, so SnapshotSelf
 * is as good as one instant, and shows what the running command wrote.  Where
 * the transaction has a snapshot of its own, that one is read with, so that
 * SERIALIZABLE knows what was read.
 */
int64
EsBoundaryRead(Relation event, const EsStore *store, const EsBoundary *query,
			   const EsBoundaryRange *range, EsEventSink sink, void *arg)
{
	bool		fixed = IsolationUsesXactSnapshot() || RecoveryInProgress();
	XLogRecPtr	flushed = RecoveryInProgress() ? PG_UINT64_MAX : GetFlushRecPtr(NULL);
	XLogRecPtr	needed;
	int64		last = query_settled(event, store, query, &needed);
	int64		position;
	EsUpcast   *upcast = NULL;
	EsMatchScan *scan;
	TupleTableSlot *slot;

	last = Min(last, range->last);
	if (fixed && !RecoveryInProgress())
		last = seen_up_to(event, store, query, range->first, last);
	if (!range->raw)
		upcast = EsUpcastBegin(RelationGetDescr(event), !range->runs_code);
	scan = EsMatchBegin(event, store, query,
						fixed || ES_BUG == 68 ? GetActiveSnapshot() : SnapshotSelf,
						range->backwards ? last : range->first,
						range->backwards ? range->first : last,
						range->backwards ? BackwardScanDirection : ForwardScanDirection);
	for (int64 n = 0; n < range->max_count && (slot = EsMatchNext(scan, &position, NULL)) != NULL; n++)
	{
		if (flushed != PG_UINT64_MAX)
			EsNoteDurability(slot, flushed, &needed);
		sink(EsUpcastSlot(upcast, slot), arg);
	}
	EsMatchEnd(scan);
	EsUpcastEnd(upcast);
	if (flushed != PG_UINT64_MAX && needed > flushed)
		XLogFlush(needed);
	return last;
}

/* ----- the condition ----- */

static void
note_conflict(EsConflict *conflict, TupleTableSlot *slot, int64 position, int item)
{
	bool		isnull;
	Datum		tags = slot_getattr(slot, ES_EVENT_TAGS, &isnull);

	conflict->position = position;
	conflict->item = item;
	conflict->has_tags = !isnull;
	if (!isnull)
		conflict->tags = PointerGetDatum(DatumGetArrayTypePCopy(tags));
	conflict->event_type = DatumGetTextPCopy(slot_getattr(slot, ES_EVENT_EVENT_TYPE,
														  &isnull));
}

/*
 * Is there an event that matches behind "after"?  Or, where the transaction
 * has a snapshot of its own, one that is hidden from it: what the caller
 * decided on is no longer true, whatever it gave as "after".  Everything at or
 * below the settled position that the snapshot shows is in the snapshot.
 *
 * The caller holds the locks, so that the answer stays true.
 */
EsConflict
EsBoundaryConflict(Relation event, const EsStore *store,
				   const EsCondition *condition)
{
	EsConflict	conflict = {0};
	int64		first = condition->after;
	EsMatchScan *scan;
	TupleTableSlot *slot;
	int64		position;
	int			item;

	if (IsolationUsesXactSnapshot() && ES_BUG != 63)
	{
		int64		settled = EsSettledRead(GetTransactionSnapshot());

		first = Min(first, settled);
	}
	scan = EsMatchBegin(event, store, condition->query,
						ES_BUG == 62 ? GetActiveSnapshot() : SnapshotSelf,
						first + 1, PG_INT64_MAX, ForwardScanDirection);
	while ((slot = EsMatchNext(scan, &position, &item)) != NULL)
	{
		conflict.own = EsScanIsOwn(slot);
		conflict.unseen = position <= condition->after && !conflict.own &&
			!EsScanIsSeen(event, slot, GetTransactionSnapshot());
		if (position <= condition->after && !conflict.unseen)
			continue;
		note_conflict(&conflict, slot, position, item);
		break;
	}
	EsMatchEnd(scan);
	return conflict;
}

/*
 * 40001 where the transaction has a snapshot that does not show all of what
 * matches by now.  The caller holds the locks.
 */
void
EsBoundaryCheckSnapshot(Relation event, const EsStore *store, EsBoundary *query)
{
	EsCondition condition = {.query = query,.has_after = true,.after = PG_INT64_MAX};
	EsConflict	conflict;

	if (!IsolationUsesXactSnapshot())
		return;
	conflict = EsBoundaryConflict(event, store, &condition);
	if (conflict.position == 0)
		return;
	EsStatCount(ES_COUNT_CONFLICTS, 1);
	ereport(ERROR,
			(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			 errmsg("could not decide due to a concurrent append to the boundary"),
			 errdetail("The event at position " INT64_FORMAT " of type \"%s\" matches item %d of the boundary and is newer than this transaction's snapshot.",
					   conflict.position, text_to_cstring(conflict.event_type),
					   conflict.item),
			 errhint("Roll back and give the command again."),
			 err_generic_string(PG_DIAG_CONSTRAINT_NAME, "es_append_condition")));
}

/*
 * 40001 where an event that matches was appended behind the position.  The
 * caller holds the locks, so this transaction did it.
 */
void
EsBoundaryCheckSame(Relation event, const EsStore *store, EsBoundary *query,
					int64 after)
{
	EsCondition condition = {.query = query,.has_after = true,.after = after};
	EsConflict	conflict = EsBoundaryConflict(event, store, &condition);

	if (conflict.position == 0)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			 errmsg("the boundary changed while the command was decided"),
			 errdetail("The event at position " INT64_FORMAT " of type \"%s\" was appended by the decision itself.",
					   conflict.position, text_to_cstring(conflict.event_type)),
			 errhint("Let a decider give its events as rows, not append them."),
			 err_generic_string(PG_DIAG_CONSTRAINT_NAME, "es_append_condition")));
}
