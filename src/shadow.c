/*
 * shadow.c: read tables of the same names, in another schema.
 *
 * Handlers find their tables through search_path.  So the same handlers,
 * compiled with another schema in front, fill other tables of the same names.
 * This room makes those tables and, at the end of a rebuild, makes the read
 * tables equal to them.
 *
 * Equal is made by rows, not by files: the read tables keep their identity,
 * and readers go by their snapshots as ever.  With a primary key the rows
 * that differ are found first (es_shadow_delta_…, a table of keys), while
 * nothing is locked; keys that handlers touch afterwards are added to it by
 * triggers on the shadow tables; and only those rows are deleted, inserted or
 * updated in the end.  Without a primary key all rows are replaced.
 *
 * Everything here that touches users' tables runs in the name of the
 * projection's owner.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_class.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/plancache.h"
#include "utils/rel.h"
#include "utils/relcache.h"
#include "utils/varlena.h"

#include "apply.h"
#include "query.h"
#include "shadow.h"

/* A read table, by the parts of the statements that are made for it. */
typedef struct TableParts
{
	char	   *live;			/* qualified and quoted, as the others */
	char	   *copy;			/* its shadow */
	char	   *delta;			/* table of keys that may differ */
	char	   *keys;			/* k1, k2; NULL without a primary key */
	char	   *keys_of_new;	/* n.k1, n.k2 */
	char	   *keys_match;		/* a.k1 = b.k1 AND … */
	char	   *columns;		/* all that are taken over */
	char	   *updates;		/* c = EXCLUDED.c, …; NULL: all are keys */
	char	   *row_a;			/* ROW(a.c1, a.c2) */
	char	   *row_b;
	bool		override;		/* an identity column is among them */
} TableParts;

/* The schema for a projection's rebuild. */
char *
EsShadowSchema(const char *name)
{
	uint64		hash = hash_bytes_extended((const unsigned char *) name, strlen(name), 0);

	return psprintf("es_shadow_%016llx", (unsigned long long) hash);
}

static RangeVar *
parse_name(const char *qualified)
{
	return makeRangeVarFromNameList(textToQualifiedNameList(cstring_to_text(qualified)));
}

/* The last part of a qualified name, quoted. */
char *
EsTableName(const char *qualified)
{
	return pstrdup(quote_identifier(parse_name(qualified)->relname));
}

/* The read table of this name; 42P01 where it is gone. */
static Oid
live_relid(const char *qualified)
{
	return RangeVarGetRelid(parse_name(qualified), NoLock, false);
}

/* Run a command in the current name; call inside SPI. */
void
EsExecute(const char *sql)
{
	int			result = SPI_execute(sql, false, 0);

	if (result < 0)
		elog(ERROR, "command failed: %s: %s", SPI_result_code_string(result), sql);
}

/* Run a command in the owner's name; call inside SPI. */
static void
execute_as_owner(const EsShadow *shadow, const char *sql)
{
	EsDefiner	definer = {shadow->definer.role, "pg_catalog, pg_temp"};
	EsRights	rights;

	EsRightsEnter(&definer, &rights);
	EsExecute(sql);
	EsRightsLeave(&rights);
}

/* ----- the other compilation ----- */

/* Load a projection so that its handlers look for tables in schema first. */
void
EsShadowLoad(EsShadow *shadow, MemoryContext context, const char *name,
			 const char *schema)
{
	EsProjection *projection = EsProjectionLoad(context, name);
	MemoryContext saved = MemoryContextSwitchTo(projection->context);

	if (projection->ntables == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("projection \"%s\" names no read tables", name),
				 errhint("Name them when you create it: es_create_projection('%s', tables => …).",
						 name)));
	shadow->projection = projection;
	shadow->schema = pstrdup(quote_identifier(schema));
	projection->search_path = psprintf("%s, %s", shadow->schema, projection->search_path);
	shadow->definer.role = get_role_oid(projection->owner, false);
	shadow->definer.search_path = projection->search_path;
	MemoryContextSwitchTo(saved);
}

/* 55000 where a handler would still reach one of the live tables. */
static void
check_handler(const EsShadow *shadow, const EsHandler *handler)
{
	ListCell   *cell;

	foreach(cell, SPI_plan_get_plan_sources(handler->statement->plan))
	{
		CachedPlanSource *source = lfirst(cell);

		for (int i = 0; i < shadow->projection->ntables; i++)
			if (list_member_oid(source->relationOids,
								live_relid(shadow->projection->tables[i])))
				ereport(ERROR,
						(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						 errmsg("handler %d of projection \"%s\" reaches table %s by a qualified name",
								handler->ordinal, shadow->projection->name,
								shadow->projection->tables[i]),
						 errhint("Leave the schema out, so that the handler can be pointed at another table.")));
	}
}

/* Compile all handlers; none may reach the live tables. */
void
EsShadowCompile(EsShadow *shadow, Relation event)
{
	EsProjectionCompile(shadow->projection, event);
	for (int i = 0; i < shadow->projection->nhandlers; i++)
		check_handler(shadow, &shadow->projection->handlers[i]);
}

/* ----- the other tables ----- */

/* Make the schema, and in it a table like each read table; inside SPI. */
void
EsShadowCreateTables(const EsShadow *shadow)
{
	EsProjection *projection = shadow->projection;

	EsQueryRun(psprintf("CREATE SCHEMA %s AUTHORIZATION %s", shadow->schema,
						quote_identifier(projection->owner)), NULL);
	for (int i = 0; i < projection->ntables; i++)
		execute_as_owner(shadow, psprintf("CREATE TABLE %s.%s (LIKE %s INCLUDING ALL)",
										  shadow->schema,
										  EsTableName(projection->tables[i]),
										  projection->tables[i]));
	EsQueryRun(psprintf("CREATE TABLE %s (LIKE @es_parked INCLUDING ALL)",
						EsShadowParked(shadow)), NULL);
}

/* The table that gets the events parked by a rebuild. */
char *
EsShadowParked(const EsShadow *shadow)
{
	return psprintf("%s.es_shadow_parked", shadow->schema);
}

/* Drop the schema with all that is in it, if it is there; inside SPI. */
void
EsShadowDrop(const char *schema)
{
	if (OidIsValid(get_namespace_oid(schema, true)))
	{
		EsQueryRun("SELECT set_config('client_min_messages', 'warning', true)", NULL);
		EsQueryRun(psprintf("DROP SCHEMA %s CASCADE", quote_identifier(schema)), NULL);
	}
}

/* ----- making the read tables equal ----- */

static void
append_item(StringInfo list, const char *separator, const char *format, const char *column)
{
	if (list->len > 0)
		appendStringInfoString(list, separator);
	for (; *format != '\0'; format++)
	{
		if (*format == '@')
			appendStringInfoString(list, column);
		else
			appendStringInfoChar(list, *format);
	}
}

/* Lists over the columns of a table, "@" standing for the column. */
static char *
column_list(Relation rel, Bitmapset *columns, const char *separator, const char *format)
{
	TupleDesc	desc = RelationGetDescr(rel);
	StringInfoData list;

	initStringInfo(&list);
	for (int i = 0; i < desc->natts; i++)
		if (bms_is_member(i, columns))
			append_item(&list, separator, format,
						quote_identifier(NameStr(TupleDescAttr(desc, i)->attname)));
	return list.len == 0 ? NULL : list.data;
}

/*
 * Columns that are taken over: not those that the table computes, or numbers,
 * by itself, unless the number is part of the key.
 */
static Bitmapset *
taken_columns(Relation rel, const Bitmapset *keys, bool *has_identity)
{
	TupleDesc	desc = RelationGetDescr(rel);
	Bitmapset  *columns = NULL;

	*has_identity = false;
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (att->attisdropped || att->attgenerated != '\0' ||
			(att->attidentity != '\0' && !bms_is_member(i, keys)))
			continue;
		columns = bms_add_member(columns, i);
		if (att->attidentity != '\0')
			*has_identity = true;
	}
	return columns;
}

static Bitmapset *
key_columns(Relation rel)
{
	Bitmapset  *attrs = RelationGetIndexAttrBitmap(rel, INDEX_ATTR_BITMAP_PRIMARY_KEY);
	Bitmapset  *columns = NULL;
	int			attr = -1;

	while ((attr = bms_next_member(attrs, attr)) >= 0)
		columns = bms_add_member(columns,
								 attr + FirstLowInvalidHeapAttributeNumber - 1);
	return columns;
}

/* The parts of the statements for the i-th read table. */
static TableParts
table_parts(const EsShadow *shadow, int i)
{
	const char *name = shadow->projection->tables[i];
	Relation	rel = table_open(live_relid(name), AccessShareLock);
	TableParts	parts;
	Bitmapset  *keys = key_columns(rel);
	Bitmapset  *columns = taken_columns(rel, keys, &parts.override);

	parts.live = pstrdup(name);
	parts.copy = psprintf("%s.%s", shadow->schema, EsTableName(name));
	parts.delta = psprintf("%s.es_shadow_delta_%d", shadow->schema, i);
	parts.keys = column_list(rel, keys, ", ", "@");
	parts.keys_of_new = column_list(rel, keys, ", ", "n.@");
	parts.keys_match = column_list(rel, keys, " AND ", "a.@ = b.@");
	parts.columns = column_list(rel, columns, ", ", "@");
	parts.updates = column_list(rel, bms_difference(columns, keys), ", ", "@ = EXCLUDED.@");
	parts.row_a = column_list(rel, columns, ", ", "a.@");
	parts.row_b = column_list(rel, columns, ", ", "b.@");
	table_close(rel, NoLock);	/* kept, so that the columns stay what they are */
	return parts;
}

/*
 * From now on note the keys of rows that handlers change in the shadow
 * tables; inside SPI.
 */
void
EsShadowTrack(const EsShadow *shadow)
{
	for (int i = 0; i < shadow->projection->ntables; i++)
	{
		TableParts	parts = table_parts(shadow, i);
		const char *note;

		if (parts.keys == NULL)
			continue;
		execute_as_owner(shadow, psprintf("CREATE TABLE %s AS SELECT %s FROM %s WHERE false",
										  parts.delta, parts.keys, parts.live));
		note = psprintf("INSERT INTO %s SELECT %s FROM changed n; RETURN NULL;",
						parts.delta, parts.keys_of_new);
		execute_as_owner(shadow, psprintf("CREATE FUNCTION %s.es_shadow_note_%d() RETURNS trigger"
										  " LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp"
										  " AS %s",
										  shadow->schema, i,
										  quote_literal_cstr(psprintf("BEGIN %s END", note))));
		execute_as_owner(shadow, psprintf("CREATE TRIGGER es_shadow_insert AFTER INSERT ON %s"
										  " REFERENCING NEW TABLE AS changed FOR EACH STATEMENT"
										  " EXECUTE FUNCTION %s.es_shadow_note_%d()",
										  parts.copy, shadow->schema, i));
		execute_as_owner(shadow, psprintf("CREATE TRIGGER es_shadow_update AFTER UPDATE ON %s"
										  " REFERENCING NEW TABLE AS changed FOR EACH STATEMENT"
										  " EXECUTE FUNCTION %s.es_shadow_note_%d()",
										  parts.copy, shadow->schema, i));
		execute_as_owner(shadow, psprintf("CREATE TRIGGER es_shadow_update_old AFTER UPDATE ON %s"
										  " REFERENCING OLD TABLE AS changed FOR EACH STATEMENT"
										  " EXECUTE FUNCTION %s.es_shadow_note_%d()",
										  parts.copy, shadow->schema, i));
		execute_as_owner(shadow, psprintf("CREATE TRIGGER es_shadow_delete AFTER DELETE ON %s"
										  " REFERENCING OLD TABLE AS changed FOR EACH STATEMENT"
										  " EXECUTE FUNCTION %s.es_shadow_note_%d()",
										  parts.copy, shadow->schema, i));
	}
}

/* Note the keys of all rows that differ now; inside SPI. */
void
EsShadowCompare(const EsShadow *shadow)
{
	for (int i = 0; i < shadow->projection->ntables; i++)
	{
		TableParts	parts = table_parts(shadow, i);

		if (parts.keys == NULL)
			continue;
		execute_as_owner(shadow, psprintf("INSERT INTO %s SELECT %s FROM %s a FULL JOIN %s b USING (%s)"
										  " WHERE ROW(%s)::record OPERATOR(pg_catalog.*<>) ROW(%s)::record",
										  parts.delta, parts.keys, parts.live, parts.copy,
										  parts.keys, parts.row_a, parts.row_b));
	}
}

/* Make one read table equal where the noted keys say that it may differ. */
static void
take_over_by_key(const EsShadow *shadow, const TableParts *parts)
{
	execute_as_owner(shadow, psprintf("DELETE FROM %s a USING %s b WHERE %s"
									  " AND NOT EXISTS (SELECT FROM %s AS a WHERE %s)",
									  parts->live, parts->delta, parts->keys_match,
									  parts->copy, parts->keys_match));
	execute_as_owner(shadow,
					 psprintf("INSERT INTO %s AS a (%s) %s SELECT %s FROM %s AS a"
							  " WHERE EXISTS (SELECT FROM %s b WHERE %s)"
							  " ON CONFLICT (%s) DO %s%s",
							  parts->live, parts->columns,
							  parts->override ? "OVERRIDING SYSTEM VALUE" : "",
							  parts->columns, parts->copy, parts->delta,
							  parts->keys_match, parts->keys,
							  parts->updates == NULL ? "NOTHING" : "UPDATE SET ",
							  parts->updates == NULL ? "" : parts->updates));
}

/* Without a key: all rows. */
static void
take_over_all(const EsShadow *shadow, const TableParts *parts)
{
	execute_as_owner(shadow, psprintf("DELETE FROM %s", parts->live));
	execute_as_owner(shadow, psprintf("INSERT INTO %s (%s) %s SELECT %s FROM %s",
									  parts->live, parts->columns,
									  parts->override ? "OVERRIDING SYSTEM VALUE" : "",
									  parts->columns, parts->copy));
}

/* Make the read tables equal to the shadow tables; inside SPI. */
void
EsShadowTakeOver(const EsShadow *shadow)
{
	for (int i = 0; i < shadow->projection->ntables; i++)
	{
		TableParts	parts = table_parts(shadow, i);

		if (parts.keys == NULL)
			take_over_all(shadow, &parts);
		else
			take_over_by_key(shadow, &parts);
	}
}
