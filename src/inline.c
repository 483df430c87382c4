/*
 * inline.c: the session's compiled projections, and running them inline.
 *
 * All definitions are read at once and kept until one of them changes; their
 * handlers are compiled when first used.  An append asks one hash table, by
 * event type, which live inline projections care.  A set of definitions that
 * has gone stale may still be at work further up the stack (a handler may
 * append events, or define projections), so it is put aside and freed in the
 * next transaction.
 */
#include "postgres.h"

#include "access/table.h"
#include "miscadmin.h"
#include "nodes/bitmapset.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/tuplestore.h"

#include "insert.h"
#include "apply.h"
#include "compat.h"
#include "projection.h"
#include "upcast.h"

/* The live inline projections that have a handler for an event type. */
typedef struct Interest
{
	char		event_type[ES_MAX_EVENT_TYPE + 1];	/* hash key */
	Bitmapset  *projections;	/* by index in the set */
} Interest;

/* All definitions of this database, as of one moment. */
typedef struct ProjectionSet
{
	MemoryContext context;		/* of all this */
	int			n;
	EsProjection **projections; /* sorted by name */
	int			nlive;			/* inline and live */
	HTAB	   *interest;		/* event type → Interest, of the live ones */
	Bitmapset  *by_batch;		/* live ones that want every event */
	LocalTransactionId retired_in;	/* may be at work in this transaction */
	struct ProjectionSet *next;	/* in the list of retired ones */
} ProjectionSet;

static ProjectionSet *current = NULL;
static ProjectionSet *retired = NULL;
static bool stale = true;
static Oid	projection_relid = InvalidOid;
static Oid	handler_relid = InvalidOid;

/* While a read model is computed anew, its handlers must not append. */
static bool appends_forbidden = false;

static bool wants_events(void);
static void run_inline(const EsInserted *inserted);

static const EsInsertedRoutine inline_routine = {wants_events, run_inline};

/* ----- the set of definitions ----- */

static void
forget_definitions(Datum arg, Oid relid)
{
	if (relid == InvalidOid || relid == projection_relid || relid == handler_relid)
		stale = true;
}

void
EsInlineInit(void)
{
	EsOnRelationChange(forget_definitions, (Datum) 0);
	EsInsertedRegister(&inline_routine);
}

static void
free_set(ProjectionSet *set)
{
	for (int i = 0; i < set->n; i++)
		EsProjectionFree(set->projections[i]);
	MemoryContextDelete(set->context);
}

/* Free the sets put aside in earlier transactions: nobody is at work there. */
static void
free_retired(void)
{
	ProjectionSet **link = &retired;

	while (*link != NULL)
	{
		ProjectionSet *set = *link;

		if (set->retired_in == EsCurrentLxid())
		{
			link = &set->next;
			continue;
		}
		*link = set->next;
		free_set(set);
	}
}

static void
note_interest(ProjectionSet *set, int index)
{
	EsProjection *projection = set->projections[index];

	set->nlive++;
	if (projection->has_batch)
		set->by_batch = bms_add_member(set->by_batch, index);
	for (int i = 0; i < projection->nhandlers; i++)
	{
		Interest   *entry;
		bool		found;

		if (projection->handlers[i].event_type == NULL)
			continue;
		entry = hash_search(set->interest, projection->handlers[i].event_type,
							HASH_ENTER, &found);
		if (!found)
			entry->projections = NULL;
		entry->projections = bms_add_member(entry->projections, index);
	}
}

/* Read all definitions. */
static ProjectionSet *
load_set(void)
{
	MemoryContext context = AllocSetContextCreate(TopMemoryContext,
												  "eventstore projections",
												  ALLOCSET_DEFAULT_SIZES);
	ProjectionSet *set = MemoryContextAllocZero(context, sizeof(ProjectionSet));
	HASHCTL		control = {.keysize = ES_MAX_EVENT_TYPE + 1,
	.entrysize = sizeof(Interest),.hcxt = context};
	MemoryContext saved;

	set->context = context;
	set->n = EsProjectionLoadAll(context, &set->projections);
	saved = MemoryContextSwitchTo(context);
	set->interest = hash_create("eventstore interest", 64, &control,
								HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);
	for (int i = 0; i < set->n; i++)
		if (set->projections[i]->is_inline &&
			set->projections[i]->status == ES_PROJECTION_LIVE)
			note_interest(set, i);
	MemoryContextSwitchTo(saved);
	return set;
}

/* The definitions as they are now; good until this transaction ends. */
static ProjectionSet *
current_set(void)
{
	const EsStore *store;
	ProjectionSet *set;

	if (!stale)
		return current;
	store = EsStoreGet();
	projection_relid = store->projection;
	handler_relid = store->projection_handler;
	free_retired();
	while (stale)
	{
		stale = false;			/* before reading: reading may learn of more */
		set = load_set();
		if (current != NULL)
		{
			current->retired_in = EsCurrentLxid();
			current->next = retired;
			retired = current;
		}
		current = set;
	}
	return current;
}

/*
 * The compiled definition of a projection, good until this transaction ends;
 * NULL where there is none.  Its status and position may be out of date.
 */
EsProjection *
EsProjectionGet(const char *name)
{
	ProjectionSet *set = current_set();

	for (int i = 0; i < set->n; i++)
		if (strcmp(set->projections[i]->name, name) == 0)
			return set->projections[i];
	return NULL;
}

/* ----- running inline ----- */

/* Let appends by this session fail, or work again. */
void
EsInlineForbidAppends(bool forbid)
{
	appends_forbidden = forbid;
}

/* Is anyone to be told of new events? */
static bool
wants_events(void)
{
	if (appends_forbidden)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot append events while a read model is computed anew"),
				 errdetail("The projection's handlers append events; running them again would append them again.")));
	return current_set()->nlive > 0;
}

/* The live projections that may have a handler for events of the type. */
static Bitmapset *
interested(const ProjectionSet *set, const text *event_type)
{
	char		key[ES_MAX_EVENT_TYPE + 1];
	int			len = Min(VARSIZE_ANY_EXHDR(event_type), ES_MAX_EVENT_TYPE);
	Interest   *entry;

	memcpy(key, VARDATA_ANY(event_type), len);
	key[len] = '\0';
	entry = hash_search(set->interest, key, HASH_FIND, NULL);
	if (entry == NULL)
		return set->by_batch;
	return set->by_batch == NULL ? entry->projections :
		bms_union(set->by_batch, entry->projections);
}

/* Run one projection over the events in order, then over all of them. */
static void
run_projection(EsProjection *projection, const EsInserted *inserted,
			   EsUpcast *upcast)
{
	Tuplestorestate *batch = NULL;
	int64		nevents = 0;
	EsRun		run;

	EsRunBegin(&run, projection, inserted->event);
	if (projection->has_batch)
		batch = tuplestore_begin_heap(true, false, work_mem);
	for (int i = 0; i < inserted->nevents; i++)
	{
		TupleTableSlot *slot = inserted->fetch(inserted, i);

		if (slot == NULL || !EsProjectionCovers(projection, slot))
			continue;
		slot = EsUpcastSlot(upcast, slot);
		if (batch != NULL)
			tuplestore_puttupleslot(batch, slot);
		nevents++;
		EsRunEvent(&run, slot);
	}
	if (batch != NULL)
		EsRunBatch(&run, batch, nevents);
	EsRunEnd(&run);
}

/* The events are in the table: run whoever cares, in order of the names. */
static void
run_inline(const EsInserted *inserted)
{
	ProjectionSet *set = current_set();
	EsUpcast   *upcast = EsUpcastBegin(RelationGetDescr(inserted->event), false);
	Bitmapset  *wanted = NULL;
	int			index = -1;

	check_stack_depth();
	for (int i = 0; i < inserted->nevents; i++)
	{
		TupleTableSlot *slot = inserted->fetch(inserted, i);

		if (slot != NULL)
			wanted = bms_add_members(wanted, interested(set, EsUpcastType(upcast, slot)));
	}
	while ((index = bms_next_member(wanted, index)) >= 0)
		run_projection(set->projections[index], inserted, upcast);
	EsUpcastEnd(upcast);
	bms_free(wanted);
}
