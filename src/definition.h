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

extern EsDefiner EsDefinerOfRow(Relation rel, HeapTuple tuple,
								AttrNumber owner, AttrNumber search_path);
extern EsScope *EsEventScope(MemoryContext context);
extern EsExpression *EsDefinitionCompile(MemoryContext context, const char *sql,
										 const EsScope *scope, Oid type,
										 const EsDefiner *definer,
										 const char *what);
extern void EsRequireArgument(FunctionCallInfo fcinfo, int n, const char *name);
extern int64 EsNaturalArgument(FunctionCallInfo fcinfo, int n, const char *name,
							   int64 default_value);

#endif							/* ES_DEFINITION_H */
