/*
 * definition.h: what the tables of definitions have in common.
 */
#ifndef ES_DEFINITION_H
#define ES_DEFINITION_H

#include "postgres.h"

#include "access/htup.h"
#include "fmgr.h"
#include "utils/rel.h"

#include "handler.h"

#define ES_DEFINITION_COLUMNS 10

/*
 * A row as a defining function was told it: the function's first arguments
 * are the table's first columns.
 */
typedef struct EsDefinitionRow
{
	Oid			table;
	int			ncolumns;
	Datum		values[ES_DEFINITION_COLUMNS];
	bool		nulls[ES_DEFINITION_COLUMNS];
} EsDefinitionRow;

/* What to do where a row with the same key is there. */
typedef enum EsOnConflict
{
	ES_CONFLICT_NOTHING,		/* leave it */
	ES_CONFLICT_REPLACE,		/* it becomes the new one */
	ES_CONFLICT_KEEP_OWNER		/* likewise, but owner and path stay */
} EsOnConflict;

extern void EsRequireArgument(FunctionCallInfo fcinfo, int n, const char *name);
extern bool EsFlagArgument(FunctionCallInfo fcinfo, int n);
extern int64 EsNaturalArgument(FunctionCallInfo fcinfo, int n, const char *name,
							   int64 default_value);
extern void EsDefinitionArguments(FunctionCallInfo fcinfo, Oid table,
								  int ncolumns, EsDefinitionRow *row);
extern bool EsDefinitionWrite(const EsDefinitionRow *row, EsOnConflict conflict);
extern void EsDefinitionReportExists(const char *what, bool if_not_exists,
									 const char *hint);
extern void EsDefinitionDelete(const EsDefinitionRow *key, bool if_exists,
							 const char *what);

extern EsDefiner EsDefinerOfRow(Relation rel, HeapTuple tuple,
								AttrNumber owner, AttrNumber search_path);
extern void EsDefinerCheck(const EsDefiner *definer, const char *what);
extern EsScope *EsEventScope(MemoryContext context);
extern EsExpression *EsDefinitionCompile(MemoryContext context, const char *sql,
										 const EsScope *scope, Oid type,
										 const EsDefiner *definer,
										 const char *what);

extern Oid EsAggregateOwner(const char *aggregate);
extern void EsDefinitionCheckOwner(Oid owner, const char *what,
								   const char *name);

#endif							/* ES_DEFINITION_H */
