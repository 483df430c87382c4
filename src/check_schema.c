/*
 * check_schema.c: are the store's tables, triggers and indexes as they were
 * installed?
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_class.h"
#include "catalog/pg_index.h"
#include "catalog/pg_sequence.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "check.h"

/*
 * Is the trigger there, enabled always, and calling the store's function?
 * Trigger functions are renamed in the end; see comment.sql.
 */
static bool
trigger_is_armed(const EsCheck *check, Relation rel, const char *name,
				 const char *function)
{
	TriggerDesc *triggers = rel->trigdesc;

	for (int i = 0; triggers != NULL && i < triggers->numtriggers; i++)
	{
		Trigger    *trigger = &triggers->triggers[i];

		if (strcmp(trigger->tgname, name) == 0)
			return trigger->tgenabled == TRIGGER_FIRES_ALWAYS &&
				get_func_namespace(trigger->tgfoid) == check->store->schema &&
				strcmp(get_func_name(trigger->tgfoid), psprintf("zz_%s", function)) == 0;
	}
	return false;
}

/* Are the archive's triggers armed, too? */
static bool
archive_is_guarded(const EsCheck *check)
{
	const EsStore *store = check->store;
	const Oid	tables[] = {store->archive_segment, store->archive_run, store->archive_key};
	bool		guarded = true;

	for (size_t i = 0; i < lengthof(tables); i++)
	{
		Relation	rel = table_open(tables[i], AccessShareLock);

		guarded &= trigger_is_armed(check, rel, "es_archive_guard", "es_archive_guard") &&
			trigger_is_armed(check, rel, "es_archive_guard_statement", "es_archive_guard");
		table_close(rel, AccessShareLock);
	}
	return guarded;
}

static void
check_triggers(EsCheck *check)
{
	static const char *const triggers[][2] = {
		{"zz_es_event_insert", "es_event_insert"},
		{"aa_es_event_tag", "es_event_tag"},
		{"es_event_refuse", "es_event_refuse"},
		{"es_event_refuse_row", "es_event_refuse"},
		{"es_event_statement_begin", "es_event_statement"},
		{"es_event_statement_end", "es_event_statement"}
	};

	for (size_t i = 0; i < lengthof(triggers); i++)
		if (!trigger_is_armed(check, check->event, triggers[i][0], triggers[i][1]))
		{
			EsCheckPut(check, "triggers", ES_CHECK_ERROR,
					   "Use ALTER TABLE es_event ENABLE ALWAYS TRIGGER, then es_check() what came meanwhile.",
					   "trigger \"%s\" is missing, not enabled always or not the store's",
					   triggers[i][0]);
			return;
		}
	if (!archive_is_guarded(check))
		EsCheckPut(check, "triggers", ES_CHECK_ERROR,
				   "Enable it ALWAYS again, then es_check() what came meanwhile.",
				   "a trigger of the archive is missing, not enabled always or not the store's");
	else
		EsCheckPut(check, "triggers", ES_CHECK_OK, NULL, "%d enabled always",
			   (int) lengthof(triggers));
}

/* Find a relation of the store that somebody else owns, or that is not logged. */
static void
find_strange_relations(const EsStore *store, Oid owner, char **foreign,
					   char **unlogged)
{
	const Oid	relations[] = {
		store->event, store->position_key, store->id_key, store->stream_key,
		store->position_seq, store->gate, store->settled, store->event_tag,
		store->tag_key, store->retagged, store->projection,
		store->projection_handler, store->aggregate, store->evolver,
		store->decider, store->command, store->snapshot, store->event_type,
		store->stream, store->upcaster, store->counter,
		store->archive_segment, store->archive_position_key,
		store->archive_run, store->archive_key
	};

	for (size_t i = 0; i < lengthof(relations); i++)
	{
		HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relations[i]));
		Form_pg_class form;

		if (!HeapTupleIsValid(tuple))
			elog(ERROR, "cache lookup failed for relation %u", relations[i]);
		form = (Form_pg_class) GETSTRUCT(tuple);
		if (form->relowner != owner)
			*foreign = pstrdup(NameStr(form->relname));
		if (form->relpersistence != RELPERSISTENCE_PERMANENT)
			*unlogged = pstrdup(NameStr(form->relname));
		ReleaseSysCache(tuple);
	}
}

static void
check_relations(EsCheck *check)
{
	Oid			owner = EsExtensionOwner();
	char	   *owner_name = GetUserNameFromId(owner, false);
	char	   *foreign = NULL;
	char	   *unlogged = NULL;

	find_strange_relations(check->store, owner, &foreign, &unlogged);
	if (foreign == NULL)
		EsCheckPut(check, "ownership", ES_CHECK_OK, NULL,
				   "all relations belong to the extension's owner \"%s\"", owner_name);
	else
		EsCheckPut(check, "ownership", ES_CHECK_ERROR,
				   "Use ALTER TABLE ... OWNER TO.",
				   "the extension's owner \"%s\" does not own \"%s\"", owner_name, foreign);
	if (unlogged == NULL)
		EsCheckPut(check, "persistence", ES_CHECK_OK, NULL, "all relations are logged");
	else
		EsCheckPut(check, "persistence", ES_CHECK_ERROR,
				   "Use ALTER TABLE ... SET LOGGED.",
				   "\"%s\" is not logged: a crash empties it", unlogged);
}

static bool
index_is_sound(Oid index)
{
	HeapTuple	tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(index));
	Form_pg_index form;
	bool		sound;

	if (!HeapTupleIsValid(tuple))
		return false;
	form = (Form_pg_index) GETSTRUCT(tuple);
	sound = form->indisunique && form->indisvalid && form->indisready &&
		form->indimmediate;
	ReleaseSysCache(tuple);
	return sound;
}

static void
check_sequence(EsCheck *check)
{
	HeapTuple	tuple = SearchSysCache1(SEQRELID, ObjectIdGetDatum(check->store->position_seq));
	Form_pg_sequence seq;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for sequence %u", check->store->position_seq);
	seq = (Form_pg_sequence) GETSTRUCT(tuple);
	EsCheckPut(check, "sequence",
			   seq->seqincrement == 1 && seq->seqcache == 1 && !seq->seqcycle ?
			   ES_CHECK_OK : ES_CHECK_ERROR,
			   "Use ALTER SEQUENCE es_event_position_seq INCREMENT 1 CACHE 1 NO CYCLE.",
			   "increment " INT64_FORMAT ", cache " INT64_FORMAT ", %s",
			   seq->seqincrement, seq->seqcache, seq->seqcycle ? "cycle" : "no cycle");
	ReleaseSysCache(tuple);
}

static void
check_unique_indexes(EsCheck *check)
{
	const EsStore *store = check->store;

	EsCheckPut(check, "unique indexes",
			   index_is_sound(store->position_key) && index_is_sound(store->id_key) &&
			   index_is_sound(store->stream_key) && index_is_sound(store->tag_key) ?
			   ES_CHECK_OK : ES_CHECK_ERROR,
			   "REINDEX the one that is not valid.",
			   "position, event id, stream and version, tag and position");
}

/* What is installed, without a look at the events. */
void
EsCheckSchema(EsCheck *check)
{
	check_triggers(check);
	check_relations(check);
	check_sequence(check);
	check_unique_indexes(check);
}
