/*
 * event_id.c: ids of new events, and appends that are repeated by their ids.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/stratnum.h"
#include "access/tableam.h"
#include "catalog/pg_collation.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "archive.h"
#include "event_id.h"
#include "point.h"
#include "scan.h"

/* Random bytes fetched at once: the generator's price is mostly by the call. */
#define ES_RANDOM_POOL 512

/* Random bits for an id, from a pool that lasts for many. */
static void
random_bits(unsigned char *target, int len)
{
	static unsigned char pool[ES_RANDOM_POOL];
	static int	unused = 0;

	if (unused < len)
	{
		if (!pg_strong_random(pool, ES_RANDOM_POOL))
			ereport(ERROR,
					(errcode(ERRCODE_INTERNAL_ERROR),
					 errmsg("could not generate random values")));
		unused = ES_RANDOM_POOL;
	}
	unused -= len;
	memcpy(target, pool + unused, len);
}

/*
 * Write a UUID of version 7: milliseconds since 1970, then twelve bits that
 * make those of one call ascend with nth, then random bits.  Neighbours in
 * time are neighbours in the id index.
 */
static void
make_id(pg_uuid_t *uuid, TimestampTz at, int nth)
{
	unsigned char *id = uuid->data;
	int64		usecs = at +
		(POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY;
	int64		quarters = usecs * 4 + nth; /* about what twelve bits can tell apart */
	int64		ms = quarters / 4000;
	uint32		fraction = (uint32) (quarters % 4000);

	random_bits(id + 8, UUID_LEN - 8);
	for (int b = 0; b < 6; b++)
		id[b] = (unsigned char) (ms >> (8 * (5 - b)));
	id[6] = (unsigned char) (0x70 | (fraction >> 8));
	id[7] = (unsigned char) fraction;
	id[8] = (unsigned char) (0x80 | (id[8] & 0x3F));
}

/* Give an id to each event that has none. */
void
EsAssignIds(EsAppend *append)
{
	int			made = 0;

	for (int i = 0; i < append->nevents; i++)
		if (!append->events[i].has_id)
			make_id(&append->events[i].event_id, append->recorded_at, made++);
}

/* Give an event its id before its place; nth of those of one call. */
void
EsMakeEventId(EsNewEvent *event, int nth)
{
	make_id(&event->event_id, GetCurrentTimestamp(), nth);
	event->has_id = true;
}

/* Is the stored event in the slot the one that is being appended? */
static bool
is_same_event(TupleTableSlot *slot, const text *stream_id,
			  const EsNewEvent *event)
{
	bool		isnull;
	Datum		stored;

	stored = slot_getattr(slot, ES_EVENT_STREAM_ID, &isnull);
	if (!DatumGetBool(DirectFunctionCall2Coll(texteq, C_COLLATION_OID, stored,
											  PointerGetDatum(stream_id))))
		return false;
	stored = slot_getattr(slot, ES_EVENT_EVENT_TYPE, &isnull);
	if (!DatumGetBool(DirectFunctionCall2Coll(texteq, C_COLLATION_OID, stored,
											  PointerGetDatum(event->event_type))))
		return false;
	stored = slot_getattr(slot, ES_EVENT_DATA, &isnull);
	return DatumGetBool(DirectFunctionCall2(jsonb_eq, stored,
											JsonbPGetDatum(event->data)));
}

void
EsReportIdUsed(const EsNewEvent *event, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNIQUE_VIOLATION),
			 errmsg("event id %s is already used",
					DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(&event->event_id)))),
			 errdetail("%s", detail),
			 errhint("Repeat an append with the same ids only with the same events; give new events new ids."),
			 err_generic_string(PG_DIAG_CONSTRAINT_NAME, "es_event_event_id_key")));
}

/* The last segment of the archive as of now, or 0. */
int64
EsLastArchived(void)
{
	Snapshot	snapshot;
	int64		segment;

	if (EsArchiveIsEmpty())
		return 0;
	snapshot = RegisterSnapshot(GetCatalogSnapshot(EsStoreGet()->archive_segment));
	segment = EsArchiveLastSegment(snapshot);
	UnregisterSnapshot(snapshot);
	return segment;
}

/*
 * 23505 if an event was archived, in a segment behind that one, with an id of
 * a new event; archive.c says when to ask.
 */
void
EsCheckIdArchived(const pg_uuid_t *id, int64 after_segment)
{
	Snapshot	snapshot;
	EsNewEvent	event = {.event_id = *id};

	if (EsArchiveIsEmpty())
		return;
	snapshot = RegisterSnapshot(GetCatalogSnapshot(EsStoreGet()->archive_segment));
	if (EsArchiveFindId(id, after_segment, snapshot, NULL))
		EsReportIdUsed(&event, "It belongs to an archived event.");
	UnregisterSnapshot(snapshot);
}

/*
 * The events are in the table: were others with their ids archived since
 * EsAppendIsRetry looked?
 */
void
EsAppendCheckArchived(const EsAppend *append)
{
	bool		has_ids = false;

	for (int i = 0; i < append->nevents && !append->own_stream; i++)
		has_ids |= append->events[i].has_id;
	if (!has_ids || ES_BUG == 84 || EsLastArchived() == append->archived)
		return;
	for (int i = 0; i < append->nevents; i++)
		if (append->events[i].has_id)
			EsCheckIdArchived(&append->events[i].event_id, append->archived);
}

/*
 * Is this append the repetition of an earlier one?  If all ids are stored,
 * with the same events in the same order, versions and positions are filled
 * in from there and the answer is yes; if none is, no.  Anything between is
 * 23505.  The stream is locked, so a first try that is still under way has
 * been waited for.
 */
bool
EsAppendIsRetry(Relation event, const EsStore *store, EsAppend *append)
{
	Relation	id_key = index_open(store->id_key, AccessShareLock);
	TupleTableSlot *slot = table_slot_create(event, NULL);
	int			found = 0;

	append->archived = EsLastArchived();	/* before the look */
	for (int i = 0; i < append->nevents; i++)
	{
		EsNewEvent *new = &append->events[i];
		bool		isnull;

		CHECK_FOR_INTERRUPTS();
		if (!new->has_id || !EsScanFindId(event, id_key, &new->event_id, slot))
			continue;
		if (!is_same_event(slot, append->stream_id, new))
			EsReportIdUsed(new, "It belongs to a different event.");
		new->position = DatumGetInt64(slot_getattr(slot, ES_EVENT_POSITION, &isnull));
		new->version = DatumGetInt64(slot_getattr(slot, ES_EVENT_VERSION, &isnull));
		if (found != i)
			EsReportIdUsed(new, "Only some of the batch's event ids exist.");
		if (i > 0 && new->version != append->events[i - 1].version + 1)
			EsReportIdUsed(new, "The events exist, but not in this order one after the other.");
		found++;
	}
	ExecDropSingleTupleTableSlot(slot);
	index_close(id_key, AccessShareLock);
	if (found > 0 && found < append->nevents)
		EsReportIdUsed(&append->events[found - 1],
					   "Only some of the batch's event ids exist.");
	return found > 0;
}
