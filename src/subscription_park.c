/*
 * subscription_park.c: events that a subscription has put aside.
 *
 * An event that a consumer could not deal with gets a row in
 * es_subscription_parked, and the checkpoint passes over it.  While the row is
 * there and the subscription's hold is 'stream', the walk along the log puts
 * later events of the stream behind it, into rows of their own, so that the
 * stream's order is kept whatever becomes of the checkpoint.
 *
 * An event comes back when it is due and is the first of its stream that is put
 * aside; those that only wait behind it come in the same delivery.  When they are
 * acknowledged their rows go, and what has gathered behind them meanwhile
 * becomes due.  So a stream returns from the rows to the log by itself.
 *
 * A row belongs to the consumer that holds its partition, as checkpoints do.
 * Only es_replay_parked changes rows of others, and only such as are neither
 * due nor delivered.
 *
 * The look at an event's stream is made for each event delivered while anything
 * is put aside, so it goes by the index directly; nothing else here is hot.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "definition.h"
#include "log.h"
#include "point.h"
#include "query.h"
#include "scan.h"
#include "subscription.h"
#include "wake.h"

#define FIRST_DELAY INT64CONST(1000000) /* us until the first retry */
#define LONGEST_DELAY INT64CONST(300000000)

/* Columns of es_subscription_parked. */
enum
{
	K_SUBSCRIPTION = 1, K_POSITION, K_PARTITION, K_STREAM_ID, K_EVENT_TYPE,
	K_STATE, K_REASON, K_ATTEMPTS, K_DUE_AT, K_DELIVERED, K_PARKED_AT, K_END
};

struct EsParkedProbe
{
	const EsSubscription *subscription;
	Datum		name;			/* of the subscription, as text */
	Relation	parked;
	Relation	index;			/* (subscription, stream_id, position) */
	IndexScanDesc scan;
	TupleTableSlot *slot;
};

/* What becomes of an event that is put aside. */
typedef enum Action
{
	ACTION_RETRY,
	ACTION_PARK,
	ACTION_SKIP
} Action;

static const char *const action_names[] = {"retry", "park", "skip"};

static const char behind_reason[] = "an earlier event of the stream is parked";

PG_FUNCTION_INFO_V1(es_nack);

/* ----- the look at the log's events ----- */

/* Has the index an entry for the keys? */
static bool
has_row(Relation parked, Oid index, ScanKeyData *keys, int nkeys)
{
	SysScanDesc scan = systable_beginscan(parked, index, true, SnapshotSelf, nkeys, keys);
	bool		found = HeapTupleIsValid(systable_getnext(scan));

	systable_endscan(scan);
	return found;
}

/*
 * Is anything put aside that events behind a position must be compared with?
 * What was skipped matters only until the checkpoint has passed it.
 */
static bool
any_parked(Relation parked, const EsSubscription *subscription, int64 from)
{
	ScanKeyData keys[2];

	ScanKeyEntryInitialize(&keys[0], 0, K_SUBSCRIPTION, BTEqualStrategyNumber,
						   InvalidOid, C_COLLATION_OID, F_TEXTEQ,
						   CStringGetTextDatum(subscription->name));
	ScanKeyInit(&keys[1], K_POSITION, BTGreaterStrategyNumber, F_INT8GT,
				Int64GetDatum(from));
	return has_row(parked, EsStoreGet()->parked_due, keys, 1) ||
		has_row(parked, EsPrimaryKey(parked), keys, 2);
}

/* Begin to look at events behind a position; NULL where nothing is to be minded. */
EsParkedProbe *
EsParkedBegin(const EsSubscription *subscription, int64 from)
{
	Relation	parked = table_open(EsStoreGet()->subscription_parked, AccessShareLock);
	EsParkedProbe *probe;

	if (!any_parked(parked, subscription, from))
	{
		table_close(parked, AccessShareLock);
		return NULL;
	}
	probe = palloc0(sizeof(EsParkedProbe));
	probe->subscription = subscription;
	probe->name = CStringGetTextDatum(subscription->name);
	probe->parked = parked;
	probe->index = index_open(EsStoreGet()->parked_stream_key, AccessShareLock);
	probe->slot = table_slot_create(parked, NULL);

	/* sees what this very call has put aside, too */
	probe->scan = EsIndexBeginScan(parked, probe->index, SnapshotSelf, 3);
	return probe;
}

/* Is the event put aside, or does it have to wait behind one that is? */
EsParkedState
EsParkedLook(EsParkedProbe *probe, TupleTableSlot *slot)
{
	ScanKeyData keys[3];
	Datum		position;
	bool		isnull;
	bool		is_first = true;

	if (probe == NULL)
		return ES_NOT_PARKED;
	position = slot_getattr(slot, ES_EVENT_POSITION, &isnull);
	ScanKeyEntryInitialize(&keys[0], 0, 1, BTEqualStrategyNumber, InvalidOid,
						   C_COLLATION_OID, F_TEXTEQ, probe->name);
	ScanKeyEntryInitialize(&keys[1], 0, 2, BTEqualStrategyNumber, InvalidOid,
						   C_COLLATION_OID, F_TEXTEQ,
						   slot_getattr(slot, ES_EVENT_STREAM_ID, &isnull));
	ScanKeyInit(&keys[2], 3, BTLessEqualStrategyNumber, F_INT8LE, position);
	index_rescan(probe->scan, keys, 3, NULL, 0);
	while (index_getnext_slot(probe->scan, BackwardScanDirection, probe->slot))
	{
		CHECK_FOR_INTERRUPTS();
		if (is_first && DatumGetInt64(slot_getattr(probe->slot, K_POSITION, &isnull)) ==
			DatumGetInt64(position))
			return ES_IS_PARKED;
		is_first = false;
		if (!probe->subscription->holds_stream || ES_BUG == 93)
			break;
		if (strcmp(TextDatumGetCString(slot_getattr(probe->slot, K_STATE, &isnull)),
				   "skipped") != 0)
			return ES_IS_BEHIND;
	}
	return ES_NOT_PARKED;
}

void
EsParkedEnd(EsParkedProbe *probe)
{
	if (probe == NULL)
		return;
	index_endscan(probe->scan);
	index_close(probe->index, AccessShareLock);
	ExecDropSingleTupleTableSlot(probe->slot);
	table_close(probe->parked, AccessShareLock);
	pfree(probe);
}

/*
 * Put an event of the log aside, as it is stored.  It has no row yet, and the
 * caller's consumer holds its partition.  due_at 0: not by itself.
 */
void
EsParkedAdd(const EsSubscription *subscription, TupleTableSlot *slot,
			const char *state, const char *reason, int attempts, TimestampTz due_at)
{
	Datum		values[K_END - 1];
	bool		nulls[K_END - 1] = {0};

	values[K_SUBSCRIPTION - 1] = CStringGetTextDatum(subscription->name);
	values[K_POSITION - 1] = slot_getattr(slot, ES_EVENT_POSITION, &nulls[K_POSITION - 1]);
	values[K_PARTITION - 1] = Int32GetDatum(EsSubscriptionPartitionOf(subscription, slot));
	values[K_STREAM_ID - 1] = slot_getattr(slot, ES_EVENT_STREAM_ID, &nulls[K_STREAM_ID - 1]);
	values[K_EVENT_TYPE - 1] = slot_getattr(slot, ES_EVENT_EVENT_TYPE, &nulls[K_EVENT_TYPE - 1]);
	values[K_STATE - 1] = CStringGetTextDatum(state);
	nulls[K_REASON - 1] = reason == NULL;
	if (reason != NULL)
		values[K_REASON - 1] = CStringGetTextDatum(reason);
	values[K_ATTEMPTS - 1] = Int32GetDatum(attempts);
	nulls[K_DUE_AT - 1] = due_at == 0;
	values[K_DUE_AT - 1] = TimestampTzGetDatum(due_at);
	values[K_DELIVERED - 1] = BoolGetDatum(false);
	values[K_PARKED_AT - 1] = TimestampTzGetDatum(GetCurrentTimestamp());
	EsRowInsert(EsStoreGet()->subscription_parked, values, nulls);
}

/* An event of the log has to wait behind one that is put aside. */
void
EsParkedAddBehind(const EsSubscription *subscription, TupleTableSlot *slot)
{
	EsParkedAdd(subscription, slot, "behind", behind_reason, 0, 0);
}

/* ----- what comes back ----- */

/*
 * When the next event is due, of any partition, or was; PG_INT64_MAX if none
 * is.  One probe of an index.
 */
TimestampTz
EsParkedNextDue(const EsSubscription *subscription)
{
	const EsStore *store = EsStoreGet();
	Oid			due_idx = store->parked_due;
	Relation	parked = table_open(store->subscription_parked, AccessShareLock);
	TimestampTz next = PG_INT64_MAX;
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyEntryInitialize(&keys[0], 0, K_SUBSCRIPTION, BTEqualStrategyNumber,
						   InvalidOid, C_COLLATION_OID, F_TEXTEQ,
						   CStringGetTextDatum(subscription->name));
	ScanKeyEntryInitialize(&keys[1], SK_ISNULL | SK_SEARCHNOTNULL, K_DUE_AT,
						   InvalidStrategy, InvalidOid, InvalidOid, InvalidOid, (Datum) 0);
	scan = systable_beginscan(parked, due_idx, true, SnapshotSelf, 2, keys);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		bool		isnull;

		next = DatumGetTimestampTz(heap_getattr(tuple, K_DUE_AT,
												RelationGetDescr(parked), &isnull));
	}
	systable_endscan(scan);
	table_close(parked, AccessShareLock);
	return next;
}

/* int4[] of the partitions that are wanted. */
static Datum
partition_array(const EsLease *lease, const bool *wanted)
{
	int			partitions = lease->subscription->partitions;
	Datum	   *elements = palloc(partitions * sizeof(Datum));
	int			n = 0;

	for (int i = 0; i < partitions; i++)
		if (wanted == NULL ? lease->partitions[i].is_mine : wanted[i])
			elements[n++] = Int32GetDatum(i);
	return PointerGetDatum(construct_array(elements, n, INT4OID, sizeof(int32), true,
										   TYPALIGN_INT));
}

static void
add_scope(EsQuery *query, const EsLease *lease, const bool *wanted)
{
	EsQueryAddText(query, lease->subscription->name);
	EsQueryAdd(query, INT4ARRAYOID, partition_array(lease, wanted), false);
}

/* Those that are due ($3) and the first of their streams that are put aside. */
#define DUE_EVENTS \
	"SELECT k.stream_id, k.position FROM @es_subscription_parked AS k" \
	" WHERE k.subscription = $1 AND k.partition = ANY ($2) AND k.due_at <= $3" \
	" AND k.state <> 'skipped'" \
	" AND (NOT k.delivered OR k.partition = ANY ($5)) AND ($4 OR NOT EXISTS" \
	"  (SELECT FROM @es_subscription_parked AS b WHERE b.subscription = k.subscription" \
	"   AND b.stream_id = k.stream_id AND b.position < k.position AND b.state <> 'skipped'))"

static void
add_due_arguments(EsQuery *query, const EsLease *lease, const bool *wanted,
				  const bool *void_in, TimestampTz now)
{
	add_scope(query, lease, wanted);
	EsQueryAdd(query, TIMESTAMPTZOID, TimestampTzGetDatum(now), false);
	EsQueryAdd(query, BOOLOID, BoolGetDatum(!lease->subscription->holds_stream), false);
	EsQueryAdd(query, INT4ARRAYOID, partition_array(lease, void_in), false);
}

/*
 * Is something due in the wanted partitions?  What is in flight in a partition
 * where the delivery is void counts as well.
 */
bool
EsParkedHasDue(const EsLease *lease, const bool *wanted, const bool *void_in,
			   TimestampTz now)
{
	EsQuery		query = {0};
	bool		found;

	if (EsParkedNextDue(lease->subscription) > now)
		return false;
	SPI_connect();
	add_due_arguments(&query, lease, wanted, void_in, now);
	found = EsQueryRun(DUE_EVENTS " LIMIT 1", &query) > 0;
	SPI_finish();
	return found;
}

static int
compare_due(const void *a, const void *b)
{
	int64		x = ((const EsDueEvent *) a)->position;
	int64		y = ((const EsDueEvent *) b)->position;

	return (x > y) - (x < y);
}

/*
 * Take what is due in the caller's partitions, and what waits behind it, at
 * most max, in the order of their positions.  Answers how many.
 */
int
EsParkedTakeDue(const EsLease *lease, TimestampTz now, int max, EsDueEvent **events)
{
	MemoryContext context = CurrentMemoryContext;
	EsQuery		query = {0};
	bool	   *nowhere;
	int			n;

	if (EsParkedNextDue(lease->subscription) > now)
		return 0;
	SPI_connect();
	nowhere = palloc0(lease->subscription->partitions * sizeof(bool));
	add_due_arguments(&query, lease, NULL, nowhere, now);
	EsQueryAddInt64(&query, max);
	n = EsQueryRun("WITH head AS (" DUE_EVENTS " ORDER BY k.due_at, k.position LIMIT $6),"
				   " taken AS (SELECT k.position FROM head AS h"
				   "  JOIN @es_subscription_parked AS k ON k.subscription = $1"
				   "  AND k.stream_id = h.stream_id"
				   "  AND (k.position = h.position OR k.position > h.position AND k.state = 'behind')"
				   "  WHERE NOT EXISTS (SELECT FROM @es_subscription_parked AS b"
				   "   WHERE b.subscription = $1 AND b.stream_id = h.stream_id"
				   "   AND b.position > h.position AND b.position < k.position"
				   "   AND b.state IN ('parked', 'retry') AND NOT $4)"
				   "  ORDER BY k.position LIMIT $6)"
				   " UPDATE @es_subscription_parked AS u SET delivered = true,"
				   " attempts = u.attempts + 1 FROM taken AS t"
				   " WHERE u.subscription = $1 AND u.position = t.position"
				   " RETURNING u.position, u.attempts::pg_catalog.int8", &query);
	*events = MemoryContextAlloc(context, Max(n, 1) * sizeof(EsDueEvent));
	for (int i = 0; i < n; i++)
	{
		(*events)[i].position = EsQueryInt64(i, 1);
		(*events)[i].attempts = (int) EsQueryInt64(i, 2);
	}
	SPI_finish();
	qsort(*events, n, sizeof(EsDueEvent), compare_due);
	return n;
}

/* What has gathered behind events that are gone becomes due. */
#define LET_FOLLOW \
	" UPDATE @es_subscription_parked AS f SET due_at = pg_catalog.clock_timestamp()" \
	" WHERE f.subscription = $1 AND f.state = 'behind' AND f.due_at IS NULL" \
	" AND f.stream_id IN (SELECT g.stream_id FROM gone AS g)" \
	" AND NOT EXISTS (SELECT FROM @es_subscription_parked AS b WHERE b.subscription = $1" \
	"  AND b.stream_id = f.stream_id AND b.position < f.position AND b.state <> 'skipped'" \
	"  AND b.position NOT IN (SELECT g.position FROM gone AS g))" \
	" AND f.position NOT IN (SELECT g.position FROM gone AS g)"

/*
 * Those of the last delivery up to a position are dealt with.  Answers how
 * many are left in flight.
 */
int64
EsParkedAck(const EsLease *lease, int64 up_to)
{
	EsQuery		query = {0};
	int64		left;

	SPI_connect();
	add_scope(&query, lease, NULL);
	EsQueryAddInt64(&query, up_to);
	EsQueryRun("WITH gone AS (DELETE FROM @es_subscription_parked WHERE subscription = $1"
			   " AND partition = ANY ($2) AND delivered AND position <= $3"
			   " RETURNING stream_id, position)" LET_FOLLOW, &query);
	EsQueryRun("SELECT count(*) FROM @es_subscription_parked WHERE subscription = $1"
			   " AND partition = ANY ($2) AND delivered AND $3 IS NOT NULL", &query);
	left = EsQueryInt64(0, 1);
	SPI_finish();
	return left;
}

/*
 * The last delivery of a consumer, to these partitions, was not acknowledged:
 * what was put aside before is so again, and parked once it has been
 * delivered too often.
 */
void
EsParkedGiveUp(const EsLease *lease, const char *consumer)
{
	int			partitions = lease->subscription->partitions;
	bool	   *wanted = palloc0(partitions * sizeof(bool));
	EsQuery		query = {0};

	for (int i = 0; i < partitions; i++)
		wanted[i] = lease->partitions[i].consumer != NULL &&
			strcmp(lease->partitions[i].consumer, consumer) == 0;
	SPI_connect();
	add_scope(&query, lease, wanted);
	EsQueryAdd(&query, INT4OID, Int32GetDatum(lease->subscription->max_attempts), false);
	EsQueryRun("UPDATE @es_subscription_parked SET delivered = false,"
			   " state = CASE WHEN attempts >= $3 THEN 'parked' ELSE state END,"
			   " due_at = CASE WHEN attempts >= $3 THEN NULL ELSE due_at END"
			   " WHERE subscription = $1 AND partition = ANY ($2) AND delivered", &query);
	SPI_finish();
	pfree(wanted);
}

/* The same for the caller, who has not tried. */
void
EsParkedGiveBack(const EsLease *lease)
{
	EsQuery		query = {0};

	SPI_connect();
	add_scope(&query, lease, NULL);
	EsQueryRun("UPDATE @es_subscription_parked SET delivered = false,"
			   " attempts = attempts - 1"
			   " WHERE subscription = $1 AND partition = ANY ($2) AND delivered", &query);
	SPI_finish();
}

/* ----- es_nack ----- */

/* An event of the caller's delivery. */
typedef struct NackedEvent
{
	EsLease		lease;
	Relation	event;			/* es_event */
	const EsStore *store;
	int64		position;
	TupleTableSlot *slot;		/* the event, as it is stored */
	EsPartition *partition;
	bool		was_parked;		/* it has a row already */
	int			attempts;		/* deliveries, this one included */
	MemoryContext context;		/* of the positions */
	Datum	   *positions;		/* to be left alone by the consumer */
	int			npositions;
} NackedEvent;

static Action
action_argument(FunctionCallInfo fcinfo, int n)
{
	char	   *word;

	EsRequireArgument(fcinfo, n, "action");
	word = text_to_cstring(PG_GETARG_TEXT_PP(n));
	for (int i = 0; i < (int) lengthof(action_names); i++)
		if (strcmp(word, action_names[i]) == 0)
			return (Action) i;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid %s \"%s\"", "action", word),
			 errhint("Use retry, park or skip.")));
	return ACTION_RETRY;
}

/* The consumer must leave the event at this position alone. */
static void
add_position(NackedEvent *nacked, int64 position)
{
	int			n = nacked->npositions;

	if ((n & (n - 1)) == 0)
	{
		Datum	   *larger = MemoryContextAlloc(nacked->context, Max(2 * n, 1) * sizeof(Datum));

		if (n > 0)
			memcpy(larger, nacked->positions, n * sizeof(Datum));
		nacked->positions = larger;
	}
	nacked->positions[nacked->npositions++] = Int64GetDatum(position);
}

/* Was the event put aside before and is it in the delivery now? */
static bool
find_delivered_row(NackedEvent *nacked)
{
	EsQuery		query = {0};
	bool		found;

	if (nacked->lease.self->replayed == 0)
		return false;
	add_scope(&query, &nacked->lease, NULL);
	EsQueryAddInt64(&query, nacked->position);
	found = EsQueryRun("SELECT attempts::pg_catalog.int8 FROM @es_subscription_parked WHERE subscription = $1"
					   " AND partition = ANY ($2) AND delivered AND position = $3", &query) > 0;
	if (found)
		nacked->attempts = (int) EsQueryInt64(0, 1);
	return found;
}

/* Is the event in the part of the delivery that came from the log? */
static bool
is_in_flight(NackedEvent *nacked)
{
	const EsSubscription *subscription = nacked->lease.subscription;
	EsPartition *partition = nacked->partition;
	EsUpcast   *upcast;
	EsParkedProbe *probe;
	bool		found;

	if (!partition->is_mine || nacked->position <= partition->position ||
		nacked->position > partition->delivered_to)
		return false;
	upcast = EsUpcastBegin(RelationGetDescr(nacked->event), true);
	probe = EsParkedBegin(subscription, partition->position);
	found = EsSubscriptionWants(subscription, upcast, nacked->slot) &&
		EsParkedLook(probe, nacked->slot) == ES_NOT_PARKED;
	EsParkedEnd(probe);
	EsUpcastEnd(upcast);
	nacked->attempts = 1;
	if (nacked->position <= partition->attempted_to)
		nacked->attempts += partition->attempts;
	return found;
}

/* Find the event; 22023 if the delivery does not hold it. */
static void
find_event(NackedEvent *nacked)
{
	nacked->slot = EsDeliveryEvent(nacked->event, nacked->store, nacked->position);
	if (nacked->slot != NULL)
	{
		int			n = EsSubscriptionPartitionOf(nacked->lease.subscription, nacked->slot);

		nacked->partition = &nacked->lease.partitions[n];
		nacked->was_parked = find_delivered_row(nacked);
		if (nacked->was_parked || is_in_flight(nacked))
			return;
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("the delivery has no event at position " INT64_FORMAT, nacked->position),
			 errdetail("It was acknowledged or put aside already, or was not in the delivery.")));
}

/* When to try again, by default longer each time. */
static TimestampTz
due_time(FunctionCallInfo fcinfo, int n, int attempts)
{
	int64		delay = FIRST_DELAY;

	if (!PG_ARGISNULL(n))
		return GetCurrentTimestamp() + EsIntervalArgument(fcinfo, n, "delay");
	for (int i = 1; i < attempts && delay < LONGEST_DELAY; i++)
		delay *= 2;
	return GetCurrentTimestamp() + Min(delay, LONGEST_DELAY);
}

/* Change the row that the event has. */
static void
update_row(NackedEvent *nacked, const char *state, const char *reason,
		   TimestampTz due_at)
{
	EsQuery		query = {0};

	EsQueryAddText(&query, nacked->lease.subscription->name);
	EsQueryAddInt64(&query, nacked->position);
	EsQueryAddText(&query, state);
	EsQueryAddText(&query, reason);
	EsQueryAdd(&query, TIMESTAMPTZOID, TimestampTzGetDatum(due_at), due_at == 0);
	EsQueryRun("UPDATE @es_subscription_parked SET state = $3,"
			   " reason = coalesce($4, reason), due_at = $5, delivered = false,"
			   " parked_at = pg_catalog.clock_timestamp()"
			   " WHERE subscription = $1 AND position = $2", &query);
	nacked->lease.self->replayed--;
	nacked->lease.self->is_changed = true;
}

/* The nacked event's stream, behind it. */
static EsScan *
scan_followers(NackedEvent *nacked)
{
	bool		isnull;
	Datum		stream_id = slot_getattr(nacked->slot, ES_EVENT_STREAM_ID, &isnull);
	int64		version = DatumGetInt64(slot_getattr(nacked->slot, ES_EVENT_VERSION, &isnull));

	return EsScanStream(nacked->event, GetActiveSnapshot(), DatumGetTextPP(stream_id),
						version + 1, PG_INT64_MAX, ForwardScanDirection);
}

/* The later events of the stream that came out of the log with it wait behind it. */
static void
put_behind(NackedEvent *nacked)
{
	const EsSubscription *subscription = nacked->lease.subscription;
	EsScan	   *scan = scan_followers(nacked);
	EsUpcast   *upcast = EsUpcastBegin(RelationGetDescr(nacked->event), true);
	EsParkedProbe *probe = EsParkedBegin(subscription, nacked->partition->position);
	TupleTableSlot *slot;
	bool		isnull;

	while ((slot = EsScanNext(scan)) != NULL)
	{
		int64		position = DatumGetInt64(slot_getattr(slot, ES_EVENT_POSITION, &isnull));

		if (position > nacked->partition->delivered_to)
			break;
		if (position <= nacked->partition->position ||
			!EsSubscriptionWants(subscription, upcast, slot) ||
			EsParkedLook(probe, slot) == ES_IS_PARKED)
			continue;
		EsParkedAddBehind(subscription, slot);
		nacked->partition->in_flight--;
		add_position(nacked, position);
	}
	EsParkedEnd(probe);
	EsUpcastEnd(upcast);
	EsScanEnd(scan);
}

/* Those of the stream that came back with it wait behind it again. */
static void
put_back_behind(NackedEvent *nacked)
{
	EsQuery		query = {0};
	bool		isnull;
	int			n;

	if (nacked->lease.self->replayed == 0)
		return;
	add_scope(&query, &nacked->lease, NULL);
	EsQueryAddInt64(&query, nacked->position);
	EsQueryAdd(&query, TEXTOID, slot_getattr(nacked->slot, ES_EVENT_STREAM_ID, &isnull), false);
	n = EsQueryRun("UPDATE @es_subscription_parked SET delivered = false, attempts = attempts - 1"
				   " WHERE subscription = $1 AND partition = ANY ($2) AND delivered"
				   " AND position > $3 AND stream_id = $4 RETURNING position", &query);
	for (int i = 0; i < n; i++)
		add_position(nacked, EsQueryInt64(i, 1));
	nacked->lease.self->replayed -= n;
	nacked->lease.self->is_changed = true;
}

/* What waited behind an event that is left out may follow. */
static void
let_follow(NackedEvent *nacked)
{
	EsQuery		query = {0};

	EsQueryAddText(&query, nacked->lease.subscription->name);
	EsQueryAddInt64(&query, nacked->position);
	EsQueryRun("WITH gone AS (SELECT stream_id, position FROM @es_subscription_parked"
			   " WHERE subscription = $1 AND position = $2)" LET_FOLLOW, &query);
}

/* Put the event aside; fills in what the consumer must leave alone. */
static void
put_aside(NackedEvent *nacked, FunctionCallInfo fcinfo)
{
	const EsSubscription *subscription = nacked->lease.subscription;
	Action		action = action_argument(fcinfo, 3);
	char	   *reason = PG_ARGISNULL(4) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(4));
	TimestampTz due_at = 0;
	const char *state = "parked";

	if (action == ACTION_SKIP)
		state = "skipped";
	if (action == ACTION_RETRY)
		due_at = due_time(fcinfo, 5, nacked->attempts);
	if (action == ACTION_RETRY && nacked->attempts < subscription->max_attempts)
		state = "retry";
	else
		due_at = 0;
	add_position(nacked, nacked->position);
	if (nacked->was_parked)
		update_row(nacked, state, reason, due_at);
	else
	{
		EsParkedAdd(subscription, nacked->slot, state, reason, nacked->attempts, due_at);
		nacked->partition->in_flight--;
		nacked->partition->is_changed = true;
	}
	if (action == ACTION_SKIP)
		let_follow(nacked);
	else if (subscription->holds_stream && nacked->was_parked)
		put_back_behind(nacked);
	else if (subscription->holds_stream)
		put_behind(nacked);
}

/*
 * es_nack(name text, token text, position bigint, action text, reason text,
 *		   delay interval) → bigint[]
 */
Datum
es_nack(PG_FUNCTION_ARGS)
{
	NackedEvent nacked = {.context = CurrentMemoryContext};

	EsRequireArgument(fcinfo, 0, "name");
	EsRequireArgument(fcinfo, 1, "token");
	EsRequireArgument(fcinfo, 2, "position");
	nacked.position = PG_GETARG_INT64(2);
	nacked.event = EsEventOpen(&nacked.store, AccessShareLock);
	EsCheckPrivilege(nacked.event, ACL_SELECT);
	EsRequireReadWrite("es_nack()");
	EsLeaseOpenByToken(&nacked.lease, text_to_cstring(PG_GETARG_TEXT_PP(0)),
					   text_to_cstring(PG_GETARG_TEXT_PP(1)));
	SPI_connect();
	find_event(&nacked);
	put_aside(&nacked, fcinfo);
	EsLeaseWrite(&nacked.lease);
	ExecDropSingleTupleTableSlot(nacked.slot);
	SPI_finish();
	table_close(nacked.event, AccessShareLock);
	PG_RETURN_ARRAYTYPE_P(construct_array(nacked.positions, nacked.npositions, INT8OID,
										  sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

/* ----- es_replay_parked, of a subscription ----- */

/*
 * Let parked events come back: all, or those of a stream, or the one at a
 * position (0: any).  Answers how many.
 */
int64
EsSubscriptionReplay(const char *name, const char *stream_id, int64 position)
{
	EsQuery		query = {0};
	int64		n;

	EsSubscriptionShare(name);
	(void) EsSubscriptionFind(name, false);
	SPI_connect();
	EsQueryAddText(&query, name);
	EsQueryAddText(&query, stream_id);
	EsQueryAddInt64(&query, position);
	n = EsQueryRun("UPDATE @es_subscription_parked SET state = 'retry', attempts = 0,"
				   " due_at = pg_catalog.clock_timestamp() WHERE subscription = $1"
				   " AND NOT delivered AND ($2 IS NULL OR stream_id = $2)"
				   " AND ($3 = 0 OR position = $3)"
				   " AND (state = 'parked' OR state = 'skipped' AND $3 <> 0)", &query);
	SPI_finish();
	EsWakeAtCommit();
	return n;
}
