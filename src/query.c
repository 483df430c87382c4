/*
 * query.c: SQL on the extension's own tables, off the hot path.
 *
 * The tables of definitions and checkpoints are open to nobody but the
 * extension's owner, so what the functions do to them runs in the owner's
 * name, under a search_path that nobody else can put anything on.
 */
#include "postgres.h"

#include "access/xact.h"
#include "lib/stringinfo.h"
#include "utils/lsyscache.h"

#include "catalog.h"
#include "handler.h"
#include "query.h"

/* The text with each "@" replaced by the extension's schema and a dot. */
static char *
with_schema(const char *sql)
{
	const char *schema = quote_identifier(get_namespace_name(EsStoreGet()->schema));
	StringInfoData text;

	initStringInfo(&text);
	for (; *sql != '\0'; sql++)
	{
		if (*sql == '@')
			appendStringInfo(&text, "%s.", schema);
		else
			appendStringInfoChar(&text, *sql);
	}
	return text.data;
}

/*
 * Run one query in the name of the extension's owner; "@name" in it is one
 * of our tables.  Call inside SPI: the rows are in SPI_tuptable.  Answers how
 * many there are.
 */
uint64
EsQueryRun(const char *sql, EsQuery *query)
{
	EsDefiner	owner = {EsExtensionOwner(), "pg_catalog, pg_temp"};
	EsQuery		none = {0};
	EsRights	rights;
	int			result;

	if (query == NULL)
		query = &none;
	EsRightsEnter(&owner, &rights);
	result = SPI_execute_with_args(with_schema(sql), query->nargs, query->types,
								   query->values, query->nulls, false, 0);
	if (result < 0)
		elog(ERROR, "query on the store's tables failed: %s",
			 SPI_result_code_string(result));
	EsRightsLeave(&rights);
	return SPI_processed;
}

/* A column of the last query's result as text; NULL for null. */
char *
EsQueryText(int row, int column)
{
	return SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column);
}

/* A bigint column of the last query's result; 0 for null. */
int64
EsQueryInt64(int row, int column)
{
	bool		isnull;
	Datum		value = SPI_getbinval(SPI_tuptable->vals[row],
									  SPI_tuptable->tupdesc, column, &isnull);

	return isnull ? 0 : DatumGetInt64(value);
}
