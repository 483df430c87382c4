/*
 * event_set.c: events that are appended together, to any streams.
 *
 * The set is cut into runs, each of which is one append of append.c.  All of
 * its locks are taken at once and before the first run, by whoever appends
 * it: there may be others to take with them, and their order counts.
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/uuid.h"

#include "event_id.h"
#include "event_set.h"
#include "event_type.h"
#include "point.h"
#include "tag.h"

/* A set of events, which stay the caller's; they have no streams yet. */
EsEventSet *
EsEventSetCreate(EsNewEvent *events, int nevents)
{
	EsEventSet *set = palloc0(sizeof(EsEventSet));

	set->events = events;
	set->nevents = nevents;
	set->stream_ids = palloc0(nevents * sizeof(text *));
	set->own_stream = palloc0(nevents * sizeof(bool));
	return set;
}

/* The stream of its own that an event without one gets. */
static text *
stream_of_its_own(const EsNewEvent *event)
{
	char	   *id = DatumGetCString(DirectFunctionCall1(uuid_out,
														 UUIDPGetDatum(&event->event_id)));

	return cstring_to_text(psprintf("%s-%s", text_to_cstring(event->event_type), id));
}

/* Put an event into a stream, or into one of its own. */
void
EsEventSetPlace(EsEventSet *set, int n, text *stream_id)
{
	EsNewEvent *event = &set->events[n];

	set->stream_ids[n] = stream_id;
	if (stream_id != NULL)
	{
		EsCheckStreamId(stream_id);
		return;
	}
	set->own_stream[n] = !event->has_id;
	if (!event->has_id)
		EsMakeEventId(event, n);
	set->stream_ids[n] = stream_of_its_own(event);
}

static bool
same_text(const text *a, const text *b)
{
	return VARSIZE_ANY_EXHDR(a) == VARSIZE_ANY_EXHDR(b) &&
		memcmp(VARDATA_ANY(a), VARDATA_ANY(b), VARSIZE_ANY_EXHDR(a)) == 0;
}

/* Once all have their streams: cut the events into runs of one stream. */
void
EsEventSetCut(EsEventSet *set)
{
	set->runs = palloc0(Max(set->nevents, 1) * sizeof(EsAppend));
	for (int i = 0; i < set->nevents; i++)
	{
		EsAppend   *run;

		if (i > 0 && same_text(set->stream_ids[i], set->stream_ids[i - 1]))
		{
			set->runs[set->nruns - 1].nevents++;
			continue;
		}
		run = &set->runs[set->nruns++];
		run->stream_id = set->stream_ids[i];
		run->expected_version = ES_VERSION_ANY;
		run->events = &set->events[i];
		run->nevents = 1;
		run->locked = true;
		run->own_stream = set->own_stream[i];
	}
}

/* Check the events against their types and fill in the tags that these give. */
void
EsEventSetApplyTypes(EsEventSet *set)
{
	for (int i = 0; i < set->nruns; i++)
		EsEventTypesApply(&set->runs[i]);
}

/* The keys of the set, its streams' and its tags', with room for some more. */
EsLockKey *
EsEventSetKeys(const EsEventSet *set, int room, int *nkeys)
{
	EsLockKey  *keys;

	keys = palloc_extended(((Size) room + (Size) set->nevents * (1 + ES_MAX_TAGS)) * sizeof(EsLockKey),
						   MCXT_ALLOC_HUGE);
	*nkeys = 0;
	for (int i = 0; i < set->nruns; i++)
		if (!set->runs[i].own_stream)
			keys[(*nkeys)++] = EsLockKeyOf(ES_LOCK_STREAM, set->runs[i].stream_id,
										   ExclusiveLock);
	for (int i = 0; i < set->nevents && ES_BUG != 60; i++)
		*nkeys += EsTagsAddKeys(set->events[i].tags, RowExclusiveLock, keys + *nkeys);
	return keys;
}

/* Is the set the repetition of an earlier one?  All of it or nothing. */
bool
EsEventSetIsRetry(Relation event, const EsStore *store, EsEventSet *set)
{
	EsAppend   *stored = NULL;
	EsAppend   *new = NULL;

	for (int i = 0; i < set->nruns; i++)
	{
		EsAppend   *run = &set->runs[i];

		if (!run->own_stream && EsAppendIsRetry(event, store, run))
			stored = run;
		else
			new = run;
	}
	if (stored != NULL && new != NULL)
		EsReportIdUsed(stored->events, "Only some of the batch's event ids exist.");
	return stored != NULL;
}

/*
 * Append all events of a set that is not empty.  The caller holds all locks.
 * Answers the last one's position.
 */
int64
EsEventSetAppend(EsEventSet *set)
{
	for (int i = 0; i < set->nruns; i++)
		(void) EsAppendEvents(&set->runs[i]);
	return set->events[set->nevents - 1].position;
}
