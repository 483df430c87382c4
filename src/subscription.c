/*
 * subscription.c: definitions of subscriptions, and the functions that change
 * them.
 *
 * A subscription belongs to the role that made it, and only who can act as
 * that role may do anything with it: a stranger who acknowledges makes others
 * miss events.  Who fetches must be allowed to read es_event besides.
 *
 * Every call that works on a subscription holds it in share mode to the end of
 * its transaction; es_seek and es_drop_subscription, which pull the ground
 * from under all consumers, hold it alone.  The lock is a heavyweight
 * one with a tag of its own, so nothing is written to take it.
 *
 * The definition is read anew by each call: one probe of an index, next to
 * which nothing needs to be remembered or forgotten.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "common/int.h"
#include "miscadmin.h"
#include "port/pg_crc32c.h"
#include "storage/lock.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "definition.h"
#include "epoch.h"
#include "log.h"
#include "point.h"
#include "query.h"
#include "stream.h"
#include "subscription.h"
#include "wake.h"

#define MAX_PARTITIONS 1024

/* Columns of es_subscription. */
enum
{
	S_NAME = 1, S_OWNER, S_EVENT_TYPES, S_CATEGORY, S_PARTITIONS, S_HOLD,
	S_MAX_ATTEMPTS
};

PG_FUNCTION_INFO_V1(es_create_subscription);
PG_FUNCTION_INFO_V1(es_drop_subscription);
PG_FUNCTION_INFO_V1(es_seek);
PG_FUNCTION_INFO_V1(es_stream_partition);

/* ----- reading definitions ----- */

static Datum
row_value(Relation rel, HeapTuple tuple, AttrNumber column, bool *isnull)
{
	return heap_getattr(tuple, column, RelationGetDescr(rel), isnull);
}

static bool
visit_subscription(Relation rel, HeapTuple tuple, void *arg)
{
	EsSubscription *subscription = palloc0(sizeof(EsSubscription));
	Datum		value;
	bool		isnull;

	subscription->name = EsRowText(rel, tuple, S_NAME);
	subscription->owner = DatumGetObjectId(row_value(rel, tuple, S_OWNER, &isnull));
	value = row_value(rel, tuple, S_EVENT_TYPES, &isnull);
	subscription->ntypes = -1;
	if (!isnull)
		deconstruct_array(DatumGetArrayTypePCopy(value), TEXTOID, -1, false,
						  TYPALIGN_INT, &subscription->types, NULL,
						  &subscription->ntypes);
	value = row_value(rel, tuple, S_CATEGORY, &isnull);
	if (!isnull)
		subscription->category = DatumGetTextPCopy(value);
	subscription->partitions = DatumGetInt32(row_value(rel, tuple, S_PARTITIONS, &isnull));
	subscription->holds_stream = strcmp(EsRowText(rel, tuple, S_HOLD), "stream") == 0;
	value = row_value(rel, tuple, S_MAX_ATTEMPTS, &isnull);
	subscription->max_attempts = isnull ? PG_INT32_MAX : DatumGetInt32(value);
	*(EsSubscription **) arg = subscription;
	return false;
}

/* A definition as it is committed by now; 42704 where there is none. */
EsSubscription *
EsSubscriptionFind(const char *name, bool missing_ok)
{
	EsSubscription *subscription = NULL;

	EsCatalogScan(EsStoreGet()->subscription, S_NAME, name, visit_subscription,
				  &subscription);
	if (subscription == NULL && !missing_ok)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("subscription \"%s\" does not exist", name)));
	return subscription;
}

/* The same for its owner; 42501 for anybody else. */
EsSubscription *
EsSubscriptionOpen(const char *name)
{
	EsSubscription *subscription = EsSubscriptionFind(name, false);

	if (!has_privs_of_role(GetUserId(), subscription->owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be owner of subscription \"%s\"", name),
				 errdetail("It belongs to role \"%s\".",
						   GetUserNameFromId(subscription->owner, true) == NULL ?
						   psprintf("unknown (OID=%u)", subscription->owner) :
						   GetUserNameFromId(subscription->owner, false))));
	return subscription;
}

/* ----- locking ----- */

static LockAcquireResult
lock_subscription(const char *name, LOCKMODE mode, bool dont_wait)
{
	uint64		hash = hash_bytes_extended((const unsigned char *) name, strlen(name), 0);
	LOCKTAG		tag;

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, (uint32) (hash >> 32) & 0x7fffffff,
						 (uint32) hash, ES_LOCK_SUBSCRIPTION);
	return LockAcquire(&tag, mode, false, dont_wait);
}

/* Keep it as it is to the end of the transaction; false: somebody changes it. */
bool
EsSubscriptionTryShare(const char *name)
{
	return lock_subscription(name, ShareLock, true) != LOCKACQUIRE_NOT_AVAIL;
}

void
EsSubscriptionShare(const char *name)
{
	(void) lock_subscription(name, ShareLock, false);
}

/* ----- what a subscription wants ----- */

/*
 * The partition of a stream.  Checkpoints mean something only as long as this
 * never changes: CRC-32C is the same everywhere, whatever the server's own
 * hash functions become.
 */
static int
partition_of(const char *stream_id, int len, int partitions)
{
	pg_crc32c	crc;
	uint32		mixed;

	if (partitions == 1)
		return 0;
	INIT_CRC32C(crc);
	COMP_CRC32C(crc, stream_id, len);
	FIN_CRC32C(crc);
	mixed = (uint32) crc * 0x9E3779B1U;
	return (int) (((uint64) mixed * (uint64) partitions) >> 32);
}

int
EsSubscriptionPartitionOf(const EsSubscription *subscription, TupleTableSlot *slot)
{
	bool		isnull;
	Datum		value;
	text	   *stream_id;
	int			partition;

	if (subscription->partitions == 1)
		return 0;
	value = slot_getattr(slot, ES_EVENT_STREAM_ID, &isnull);
	stream_id = DatumGetTextPP(value);
	partition = partition_of(VARDATA_ANY(stream_id), VARSIZE_ANY_EXHDR(stream_id),
							 subscription->partitions);
	if ((Pointer) stream_id != DatumGetPointer(value))
		pfree(stream_id);		/* a long id may be stored compressed */
	return partition;
}

static bool
same_bytes(const text *a, const char *data, int len)
{
	return VARSIZE_ANY_EXHDR(a) == (Size) len &&
		memcmp(VARDATA_ANY(a), data, len) == 0;
}

static bool
is_of_category(const text *category, TupleTableSlot *slot)
{
	bool		isnull;
	Datum		value = slot_getattr(slot, ES_EVENT_STREAM_ID, &isnull);
	text	   *stream_id = DatumGetTextPP(value);
	const char *data = VARDATA_ANY(stream_id);
	bool		same = same_bytes(category, data,
								  EsCategoryLength(data, VARSIZE_ANY_EXHDR(stream_id)));

	if ((Pointer) stream_id != DatumGetPointer(value))
		pfree(stream_id);
	return same;
}

/* Is the event one that the subscription delivers, whatever its partition? */
bool
EsSubscriptionWants(const EsSubscription *subscription, const EsUpcast *upcast,
					TupleTableSlot *slot)
{
	const text *type;

	if (subscription->category != NULL && !is_of_category(subscription->category, slot))
		return false;
	if (subscription->ntypes < 0)
		return true;
	type = EsUpcastType(upcast, slot);
	for (int i = 0; i < subscription->ntypes; i++)
		if (same_bytes(DatumGetTextPP(subscription->types[i]), VARDATA_ANY(type),
					   VARSIZE_ANY_EXHDR(type)))
			return true;
	return false;
}

/*
 * es_stream_partition(stream_id text, partitions integer) → integer
 */
Datum
es_stream_partition(PG_FUNCTION_ARGS)
{
	text	   *stream_id = PG_GETARG_TEXT_PP(0);
	int			partitions = PG_GETARG_INT32(1);

	if (partitions < 1 || partitions > MAX_PARTITIONS)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" must be between 1 and %d",
						"partitions", MAX_PARTITIONS)));
	PG_RETURN_INT32(partition_of(VARDATA_ANY(stream_id),
								 VARSIZE_ANY_EXHDR(stream_id), partitions));
}

/* ----- arguments ----- */

/* Microseconds of an interval; 22023 when negative. */
int64
EsIntervalArgument(FunctionCallInfo fcinfo, int n, const char *name)
{
	Interval   *interval = PG_GETARG_INTERVAL_P(n);
	int64		days = interval->day + (int64) interval->month * DAYS_PER_MONTH;
	int64		usecs;

	if (pg_mul_s64_overflow(days, USECS_PER_DAY, &usecs) ||
		pg_add_s64_overflow(usecs, interval->time, &usecs) ||
		usecs > INT64CONST(100) * 366 * USECS_PER_DAY)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" is too long", name)));
	if (usecs < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" must not be negative", name)));
	return usecs;
}

static void
check_name(const text *name, const char *what)
{
	if (!EsNameIsValid(name, ES_MAX_EVENT_TYPE))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_NAME),
				 errmsg("invalid %s", what),
				 errdetail("A name has 1 to %d bytes and no control characters.",
						   ES_MAX_EVENT_TYPE)));
}

/*
 * Where a subscription is to go on: behind a position, behind the last event
 * recorded by a time, or, with neither, at the beginning.  Both arguments may
 * be null; at most one may be given.
 */
static int64
place_argument(FunctionCallInfo fcinfo, int position, const char *position_name,
			   int time, const char *time_name)
{
	int64		place;

	if (!PG_ARGISNULL(position) && !PG_ARGISNULL(time))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("only one of \"%s\" and \"%s\" can be given",
						position_name, time_name)));
	if (!PG_ARGISNULL(time))
		return DatumGetInt64(DirectFunctionCall1(es_position_at, PG_GETARG_DATUM(time)));
	if (PG_ARGISNULL(position))
		return 0;
	place = PG_GETARG_INT64(position);
	if (place < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" must not be negative", position_name)));
	if (place > EsLastDrawn(EsStoreGet(), NULL))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("position " INT64_FORMAT " is beyond the end of the log", place),
				 errdetail("Events to come would be left out."),
				 errhint("To begin at the end, give es_settled_position().")));
	return place;
}

/* text[] of event types; NULL for all. */
static ArrayType *
types_argument(FunctionCallInfo fcinfo, int n)
{
	ArrayType  *types;
	Datum	   *elements;
	bool	   *nulls;
	int			count;

	if (PG_ARGISNULL(n))
		return NULL;
	types = PG_GETARG_ARRAYTYPE_P(n);
	if (ARR_NDIM(types) != 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" must be a one-dimensional array", "event_types"),
				 errhint("Leave it out to have events of all types.")));
	deconstruct_array(types, TEXTOID, -1, false, TYPALIGN_INT, &elements, &nulls, &count);
	for (int i = 0; i < count; i++)
	{
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("element %d of \"%s\" must not be null", i + 1, "event_types")));
		EsCheckEventType(DatumGetTextPP(elements[i]));
	}
	return types;
}

static int
partitions_argument(FunctionCallInfo fcinfo, int n)
{
	EsRequireArgument(fcinfo, n, "partitions");
	if (PG_GETARG_INT32(n) < 1 || PG_GETARG_INT32(n) > MAX_PARTITIONS)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" must be between 1 and %d",
						"partitions", MAX_PARTITIONS)));
	return PG_GETARG_INT32(n);
}

static char *
hold_argument(FunctionCallInfo fcinfo, int n)
{
	char	   *hold;

	EsRequireArgument(fcinfo, n, "hold");
	hold = text_to_cstring(PG_GETARG_TEXT_PP(n));
	if (strcmp(hold, "stream") != 0 && strcmp(hold, "none") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid %s \"%s\"", "hold", hold),
				 errhint("Use stream or none.")));
	return hold;
}

static void
check_may_read_events(void)
{
	Relation	event = table_open(EsStoreGet()->event, AccessShareLock);

	EsCheckPrivilege(event, ACL_SELECT);
	table_close(event, AccessShareLock);
}

/* ----- changing definitions ----- */

/* Add the row of a definition; false if there is one of this name. */
static bool
insert_subscription(FunctionCallInfo fcinfo, const char *name)
{
	ArrayType  *types = types_argument(fcinfo, 3);
	EsQuery		query = {0};

	EsQueryAddText(&query, name);
	EsQueryAdd(&query, REGROLEOID, ObjectIdGetDatum(GetUserId()), false);
	EsQueryAdd(&query, TEXTARRAYOID, PointerGetDatum(types), types == NULL);
	EsQueryAddText(&query, PG_ARGISNULL(4) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(4)));
	EsQueryAdd(&query, INT4OID, Int32GetDatum(partitions_argument(fcinfo, 5)), false);
	EsQueryAddText(&query, hold_argument(fcinfo, 6));
	EsQueryAdd(&query, INT4OID, PG_ARGISNULL(7) ? (Datum) 0 : PG_GETARG_DATUM(7),
			   PG_ARGISNULL(7));
	return EsQueryRun("INSERT INTO @es_subscription (name, owner, event_types, category,"
					  " partitions, hold, max_attempts) VALUES ($1, $2, $3, $4, $5, $6, $7)"
					  " ON CONFLICT DO NOTHING", &query) > 0;
}

/*
 * The epoch to remember with a checkpoint at a position that the caller was
 * told in an epoch; 0 if none is given.  55000 if the position is not in the
 * present history.
 */
static int64
epoch_argument(FunctionCallInfo fcinfo, int n, int64 position)
{
	const EsStore *store;
	Relation	event;
	int64		present;

	if (PG_NARGS() <= n || PG_ARGISNULL(n)) /* version 0.1 had no such argument */
		return 0;
	event = EsEventOpen(&store, AccessShareLock);
	EsEpochCheck(event, store, PG_GETARG_INT64(n), position);
	present = EsEpochPresent(event, store);
	table_close(event, AccessShareLock);
	return present;
}

static void
insert_partitions(const char *name, int partitions, int64 position, int64 epoch)
{
	EsQuery		query = {0};

	EsQueryAddText(&query, name);
	EsQueryAdd(&query, INT4OID, Int32GetDatum(partitions), false);
	EsQueryAddInt64(&query, position);
	EsQueryRun("INSERT INTO @es_subscription_partition (subscription, partition,"
			   " position, delivered_to) SELECT $1, n, $3, $3"
			   " FROM generate_series(0, $2 - 1) AS n", &query);
	if (epoch == 0)
		return;
	query = (EsQuery) {0};
	EsQueryAddText(&query, name);
	EsQueryAddInt64(&query, epoch);
	EsQueryRun("UPDATE @es_subscription_partition SET epoch = $2"
			   " WHERE subscription = $1", &query);
}

/*
 * es_create_subscription(name text, from_position bigint, from_time timestamptz,
 *						  event_types text[], category text, partitions integer,
 *						  hold text, max_attempts integer, if_not_exists boolean,
 *						  epoch bigint)
 */
Datum
es_create_subscription(PG_FUNCTION_ARGS)
{
	bool		if_not_exists = !PG_ARGISNULL(8) && PG_GETARG_BOOL(8);
	char	   *name;
	int64		position;
	int64		epoch;

	EsRequireArgument(fcinfo, 0, "name");
	name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	check_name(PG_GETARG_TEXT_PP(0), "subscription name");
	if (!PG_ARGISNULL(4))
		check_name(PG_GETARG_TEXT_PP(4), "category");
	if (!PG_ARGISNULL(7) && PG_GETARG_INT32(7) < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" must be positive", "max_attempts")));
	check_may_read_events();
	EsRequireReadWrite("es_create_subscription()");
	position = place_argument(fcinfo, 1, "from_position", 2, "from_time");
	epoch = epoch_argument(fcinfo, 9, position);
	SPI_connect();
	if (insert_subscription(fcinfo, name))
		insert_partitions(name, partitions_argument(fcinfo, 5), position, epoch);
	else
		ereport(if_not_exists ? NOTICE : ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 if_not_exists ? errmsg("subscription \"%s\" already exists, skipping", name) :
				 errmsg("subscription \"%s\" already exists", name)));
	SPI_finish();
	PG_RETURN_VOID();
}

/*
 * es_drop_subscription(name text, if_exists boolean)
 */
Datum
es_drop_subscription(PG_FUNCTION_ARGS)
{
	bool		if_exists = !PG_ARGISNULL(1) && PG_GETARG_BOOL(1);
	EsQuery		query = {0};
	char	   *name;

	EsRequireReadWrite("es_drop_subscription()");
	EsRequireArgument(fcinfo, 0, "name");
	name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	if (if_exists && EsSubscriptionFind(name, true) == NULL)
	{
		ereport(NOTICE,
				(errmsg("subscription \"%s\" does not exist, skipping", name)));
		PG_RETURN_VOID();
	}
	(void) EsSubscriptionOpen(name);
	(void) lock_subscription(name, ExclusiveLock, false);
	(void) EsSubscriptionOpen(name);
	SPI_connect();
	EsQueryAddText(&query, name);
	EsQueryRun("DELETE FROM @es_subscription WHERE name = $1", &query);
	SPI_finish();
	PG_RETURN_VOID();
}

/* Move all partitions to a position; all deliveries are void. */
static void
move_partitions(const char *name, int64 position)
{
	EsQuery		query = {0};

	EsQueryAddText(&query, name);
	EsQueryAddInt64(&query, position);
	EsQueryRun("UPDATE @es_subscription_partition SET position = $2, delivered_to = $2,"
			   " consumer = NULL, in_flight = 0, attempts = 0, attempted_to = 0"
			   " WHERE subscription = $1", &query);
	EsQueryRun("DELETE FROM @es_subscription_parked"
			   " WHERE subscription = $1 AND position > $2", &query);
	EsQueryRun("UPDATE @es_subscription_parked SET delivered = false"
			   " WHERE subscription = $1 AND delivered AND position <= $2", &query);
	if (ES_BUG == 99)
		return;
	EsQueryRun("DELETE FROM @es_subscription_consumer"
			   " WHERE subscription = $1 AND $2 IS NOT NULL", &query);
}

/*
 * es_seek(name text, position bigint, at timestamptz) → bigint
 */
Datum
es_seek(PG_FUNCTION_ARGS)
{
	char	   *name;
	int64		position;

	EsRequireArgument(fcinfo, 0, "name");
	name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	if (PG_ARGISNULL(1) && PG_ARGISNULL(2))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("\"%s\" or \"%s\" must be given", "position", "at")));
	(void) EsSubscriptionOpen(name);
	check_may_read_events();
	EsRequireReadWrite("es_seek()");
	position = place_argument(fcinfo, 1, "position", 2, "at");
	(void) lock_subscription(name, ExclusiveLock, false);
	(void) EsSubscriptionOpen(name);
	SPI_connect();
	move_partitions(name, position);
	SPI_finish();
	EsWakeAtCommit();
	PG_RETURN_INT64(position);
}
