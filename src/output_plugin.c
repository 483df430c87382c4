/*
 * output_plugin.c: the log as a stream of lines, by logical decoding.
 *
 * SELECT pg_create_logical_replication_slot('s', 'eventstore'), and each
 * event that is committed from then on becomes one line of JSON, in the order
 * of the commits.  Inside a stream that is the order of the versions too,
 * since two transactions that append to a stream follow each other; across
 * streams positions may come out of order, and "sequence" says which they are.
 *
 * WHAT IS NOT SENT.  Whatever happens to other tables, and anything but an
 * INSERT to es_event: an event never changes, and one that is moved to an
 * archive has been sent when it happened.
 *
 * ONLY FACTS.  The server could hand over a large transaction while it is
 * still in progress (the stream_* callbacks), or at PREPARE TRANSACTION (the
 * prepare callbacks).  Lines have no frame by which a consumer could take back
 * what was rolled back, so neither is offered: without these callbacks the
 * server calls us at COMMIT or COMMIT PREPARED only, with the rows of rolled
 * back savepoints left out.  A large transaction is not held in memory for
 * that: what exceeds logical_decoding_work_mem waits in files, and is read
 * from there one change at a time.
 *
 * CATALOGS.  All happens under a historic snapshot: system catalogs appear as
 * they were when the event was inserted, and other tables cannot be read at
 * all.  es_event is known by its OID, found once and again after a change of
 * it.  Upcasters are read from es_upcaster, which is marked as a user catalog
 * table, so the definition in force when the event was inserted is used, and
 * an event comes out the same however often it is sent.  upcast.c says which
 * upcasters can run here, and what becomes of the others.
 */
#include "postgres.h"

#include "catalog/dependency.h"
#include "catalog/pg_class.h"
#include "commands/extension.h"
#include "executor/tuptable.h"
#include "nodes/parsenodes.h"
#include "replication/logical.h"
#include "replication/output_plugin.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/varlena.h"

#include "catalog.h"
#include "cloudevent.h"
#include "compat.h"
#include "output_plugin.h"
#include "point.h"
#include "stream.h"
#include "upcast.h"

/* Changes that are left out between two signs of life to the consumer. */
#define ES_QUIET_CHANGES 100

/* What decoding a slot needs to know. */
typedef struct EsDecoding
{
	MemoryContext event_context;	/* reset after each event */
	MemoryContext transaction_context;	/* reset after each transaction */
	bool		cloudevents;	/* format */
	bool		upcast;			/* show events in their newest form */
	List	   *types;			/* of text; NIL: all */
	List	   *categories;		/* likewise */
	char	   *source;			/* given; NULL: the store's */
	uint64		catalog_changes;	/* seen when the next three were made */
	TupleTableSlot *slot;		/* NULL: not in this transaction yet */
	EsUpcast   *upcasting;		/* NULL: nothing to do */
	char	   *store_source;	/* for CloudEvents */
	int64		sent;			/* events of this transaction */
	int			quiet;			/* changes left out in a row */
} EsDecoding;

/* An option, and how its value is taken. */
typedef struct Option
{
	const char *name;
	void		(*take) (EsDecoding *decoding, const char *name, char *value);
} Option;

/* Relations that changes were met of, while they do not change themselves. */
static Oid	known_event = InvalidOid;	/* es_event */
static Oid	known_other = InvalidOid;	/* the last one that is not */
static uint64 catalog_changes = 0;	/* counts what may concern us */

extern PGDLLEXPORT void _PG_output_plugin_init(OutputPluginCallbacks *callbacks);

/* ----- options ----- */

static void
report_bad_value(const char *name, const char *value, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid value for option \"%s\": \"%s\"", name, value),
			 errhint("%s", hint)));
}

static void
take_format(EsDecoding *decoding, const char *name, char *value)
{
	if (strcmp(value, "cloudevents") == 0)
		decoding->cloudevents = true;
	else if (strcmp(value, "plain") == 0)
		decoding->cloudevents = false;
	else
		report_bad_value(name, value, "Use cloudevents or plain.");
}

/* Names separated by commas; those with commas or spaces in double quotes. */
static List *
name_list(const char *name, char *value, int max)
{
	List	   *names = NIL;
	List	   *result = NIL;
	char	   *what = psprintf("name in option \"%s\"", name);
	ListCell   *cell;

	if (!SplitGUCList(pstrdup(value), ',', &names) || names == NIL)
		report_bad_value(name, value, "Give names separated by commas, in double quotes where they hold a comma or a space.");
	foreach(cell, names)
	{
		text	   *element = cstring_to_text(lfirst(cell));

		EsCheckName(element, max, what);
		result = lappend(result, element);
	}
	return result;
}

static void
take_types(EsDecoding *decoding, const char *name, char *value)
{
	decoding->types = name_list(name, value, ES_MAX_EVENT_TYPE);
}

static void
take_categories(EsDecoding *decoding, const char *name, char *value)
{
	decoding->categories = name_list(name, value, ES_MAX_STREAM_ID);
}

static void
take_source(EsDecoding *decoding, const char *name, char *value)
{
	EsCheckSource(value);
	decoding->source = pstrdup(value);
}

static void
take_upcast(EsDecoding *decoding, const char *name, char *value)
{
	if (!parse_bool(value, &decoding->upcast))
		report_bad_value(name, value, "Use on or off.");
}

static const Option options[] = {
	{"format", take_format},
	{"types", take_types},
	{"categories", take_categories},
	{"source", take_source},
	{"upcast", take_upcast},
};

static const Option *
find_option(const char *name)
{
	for (int i = 0; i < (int) lengthof(options); i++)
		if (strcmp(options[i].name, name) == 0)
			return &options[i];
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("unrecognized option \"%s\"", name),
			 errhint("Options are format, types, categories, source and upcast.")));
	return NULL;
}

static void
take_options(EsDecoding *decoding, List *given)
{
	const Option *seen[lengthof(options)];
	int			nseen = 0;
	ListCell   *cell;

	foreach(cell, given)
	{
		DefElem    *element = lfirst_node(DefElem, cell);
		const Option *option = find_option(element->defname);

		for (int i = 0; i < nseen; i++)
			if (seen[i] == option)
				ereport(ERROR,
						(errcode(ERRCODE_SYNTAX_ERROR),
						 errmsg("option \"%s\" is given twice", option->name)));
		seen[nseen++] = option;
		if (element->arg == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("option \"%s\" needs a value", option->name)));
		option->take(decoding, option->name, strVal(element->arg));
	}
}

static void
startup(LogicalDecodingContext *ctx, OutputPluginOptions *plugin_options,
		bool is_init)
{
	EsDecoding *decoding = palloc0(sizeof(EsDecoding));

	decoding->cloudevents = true;
	decoding->upcast = true;
	decoding->event_context = AllocSetContextCreate(ctx->context,
													"eventstore event to send",
													ALLOCSET_DEFAULT_SIZES);
	decoding->transaction_context = AllocSetContextCreate(ctx->context,
														  "eventstore transaction to send",
														  ALLOCSET_DEFAULT_SIZES);
	take_options(decoding, ctx->output_plugin_options);
	plugin_options->output_type = OUTPUT_PLUGIN_TEXTUAL_OUTPUT;
	ctx->output_plugin_private = decoding;
}

/* ----- which relation is es_event ----- */

static void
on_relation_change(Datum arg, Oid relid)
{
	catalog_changes++;
	if (relid == InvalidOid || relid == known_event)
		known_event = InvalidOid;
	if (relid == InvalidOid || relid == known_other)
		known_other = InvalidOid;
}

static void
on_function_change(Datum arg, int cacheid, uint32 hash)
{
	catalog_changes++;
}

void
EsOutputPluginInit(void)
{
	EsOnRelationChange(on_relation_change, (Datum) 0);
	CacheRegisterSyscacheCallback(PROCOID, on_function_change, (Datum) 0);
}

/* The table of that name that belongs to the extension; others may be called so. */
static bool
find_out(Relation rel)
{
	Oid			extension;

	if (strcmp(RelationGetRelationName(rel), "es_event") != 0)
		return false;
	extension = getExtensionOfObject(RelationRelationId, RelationGetRelid(rel));
	return ES_BUG == 102 ||
		(OidIsValid(extension) &&
		 extension == get_extension_oid("eventstore", true));
}

static bool
is_event_table(Relation rel)
{
	Oid			relid = RelationGetRelid(rel);
	bool		is_event;

	if (likely(relid == known_event))
		return true;
	if (relid == known_other)
		return false;
	is_event = find_out(rel);
	if (is_event)
		known_event = relid;
	else
		known_other = relid;
	return is_event;
}

/* ----- an event ----- */

static bool
is_listed(const List *names, const char *name, int len)
{
	ListCell   *cell;

	if (names == NIL)
		return true;
	foreach(cell, names)
	{
		const text *listed = lfirst(cell);

		if (VARSIZE_ANY_EXHDR(listed) == (Size) len &&
			memcmp(VARDATA_ANY(listed), name, len) == 0)
			return true;
	}
	return false;
}

static bool
is_of_categories(const EsDecoding *decoding, TupleTableSlot *slot)
{
	text	   *stream_id;

	if (decoding->categories == NIL)
		return true;
	stream_id = DatumGetTextPP(slot->tts_values[ES_EVENT_STREAM_ID - 1]);
	return is_listed(decoding->categories, VARDATA_ANY(stream_id),
					 EsCategoryLength(VARDATA_ANY(stream_id),
									  VARSIZE_ANY_EXHDR(stream_id)));
}

static bool
is_of_types(const EsDecoding *decoding, TupleTableSlot *slot)
{
	text	   *type;

	if (decoding->types == NIL)
		return true;
	type = DatumGetTextPP(slot->tts_values[ES_EVENT_EVENT_TYPE - 1]);
	return is_listed(decoding->types, VARDATA_ANY(type), VARSIZE_ANY_EXHDR(type));
}

/* The columns by their names, nulls included. */
static void
append_plain(StringInfo out, const Datum *values, const bool *nulls)
{
	appendStringInfo(out, "{\"position\":" INT64_FORMAT ",\"version\":" INT64_FORMAT ",\"recorded_at\":",
					 DatumGetInt64(values[ES_EVENT_POSITION - 1]),
					 DatumGetInt64(values[ES_EVENT_VERSION - 1]));
	EsJsonAppendTime(out, values[ES_EVENT_RECORDED_AT - 1]);
	appendStringInfoString(out, ",\"event_id\":");
	EsJsonAppendUuid(out, values[ES_EVENT_EVENT_ID - 1]);
	appendStringInfo(out, ",\"type_version\":%d,\"stream_id\":",
					 DatumGetInt32(values[ES_EVENT_TYPE_VERSION - 1]));
	EsJsonAppendText(out, DatumGetTextPP(values[ES_EVENT_STREAM_ID - 1]));
	appendStringInfoString(out, ",\"event_type\":");
	EsJsonAppendText(out, DatumGetTextPP(values[ES_EVENT_EVENT_TYPE - 1]));
	appendStringInfoString(out, ",\"data\":");
	EsJsonAppendJsonb(out, values[ES_EVENT_DATA - 1]);
	appendStringInfoString(out, ",\"metadata\":");
	if (nulls[ES_EVENT_METADATA - 1])
		appendStringInfoString(out, "null");
	else
		EsJsonAppendJsonb(out, values[ES_EVENT_METADATA - 1]);
	appendStringInfoString(out, ",\"tags\":");
	if (nulls[ES_EVENT_TAGS - 1])
		appendStringInfoString(out, "null");
	else
		EsJsonAppendTextArray(out, values[ES_EVENT_TAGS - 1]);
	appendStringInfoChar(out, '}');
}

static void
send_event(LogicalDecodingContext *ctx, EsDecoding *decoding, TupleTableSlot *slot)
{
	OutputPluginPrepareWrite(ctx, true);
	if (decoding->cloudevents)
		EsCloudEventAppend(ctx->out, slot->tts_values, slot->tts_isnull,
						   decoding->store_source);
	else
		append_plain(ctx->out, slot->tts_values, slot->tts_isnull);
	OutputPluginWrite(ctx, true);
	decoding->sent++;
	decoding->quiet = 0;
}

/* Let go of what was made for this transaction's events. */
static void
forget_catalogs(EsDecoding *decoding)
{
	if (decoding->slot != NULL)
	{
		EsUpcastEnd(decoding->upcasting);
		ExecDropSingleTupleTableSlot(decoding->slot);
	}
	decoding->slot = NULL;
	decoding->upcasting = NULL;
	decoding->store_source = NULL;
	MemoryContextReset(decoding->transaction_context);
}

/* Make what depends on catalogs as the snapshot of this change shows them. */
static void
use_catalogs(EsDecoding *decoding, Relation event)
{
	MemoryContext saved;

	if (likely(decoding->slot != NULL &&
			   (ES_BUG == 103 || decoding->catalog_changes == catalog_changes)))
		return;
	forget_catalogs(decoding);
	saved = MemoryContextSwitchTo(decoding->transaction_context);
	decoding->catalog_changes = catalog_changes;
	if (decoding->upcast)
		decoding->upcasting = EsUpcastBegin(RelationGetDescr(event), false);
	if (decoding->cloudevents)
		decoding->store_source = decoding->source != NULL ? decoding->source :
			EsCloudEventSource();
	decoding->slot = MakeSingleTupleTableSlot(CreateTupleDescCopy(RelationGetDescr(event)),
											  &TTSOpsHeapTuple);
	MemoryContextSwitchTo(saved);
}

static void
decode_event(LogicalDecodingContext *ctx, EsDecoding *decoding,
			 Relation event, ReorderBufferChange *change)
{
	MemoryContext saved;
	TupleTableSlot *slot;

	use_catalogs(decoding, event);
	saved = MemoryContextSwitchTo(decoding->event_context);
	ExecForceStoreHeapTuple(EsChangeNewTuple(change), decoding->slot, false);
	slot_getallattrs(decoding->slot);
	if (is_of_categories(decoding, decoding->slot))
	{
		slot = EsUpcastSlot(decoding->upcasting, decoding->slot);
		if (is_of_types(decoding, slot))
			send_event(ctx, decoding, slot);
	}
	ExecClearTuple(decoding->slot);
	MemoryContextSwitchTo(saved);
	if (ES_BUG != 101)
		MemoryContextReset(decoding->event_context);
}

/* ----- callbacks ----- */

static void
begin_transaction(LogicalDecodingContext *ctx, ReorderBufferTXN *txn)
{
	EsDecoding *decoding = ctx->output_plugin_private;

	decoding->sent = 0;
}

/*
 * A consumer that hears nothing for long takes the server for dead, so a sign
 * of life is given where many changes are left out.
 */
static void
decode_change(LogicalDecodingContext *ctx, ReorderBufferTXN *txn,
			  Relation relation, ReorderBufferChange *change)
{
	EsDecoding *decoding = ctx->output_plugin_private;

	if (change->action == REORDER_BUFFER_CHANGE_INSERT && is_event_table(relation))
		decode_event(ctx, decoding, relation, change);
	if (++decoding->quiet < ES_QUIET_CHANGES)
		return;
	OutputPluginUpdateProgress(ctx, false);
	decoding->quiet = 0;
}

static void
commit_transaction(LogicalDecodingContext *ctx, ReorderBufferTXN *txn,
				   XLogRecPtr commit_lsn)
{
	EsDecoding *decoding = ctx->output_plugin_private;

	forget_catalogs(decoding);
	OutputPluginUpdateProgress(ctx, decoding->sent == 0);
}

void
_PG_output_plugin_init(OutputPluginCallbacks *callbacks)
{
	callbacks->startup_cb = startup;
	callbacks->begin_cb = begin_transaction;
	callbacks->change_cb = decode_change;
	callbacks->commit_cb = commit_transaction;
}
