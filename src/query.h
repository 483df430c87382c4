/*
 * query.h: SQL on the extension's own tables, off the hot path.
 */
#ifndef ES_QUERY_H
#define ES_QUERY_H

#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"

/* Arguments of one query, in order: $1, $2, … */
#define ES_QUERY_ARGS 12
typedef struct EsQuery
{
	int			nargs;
	Oid			types[ES_QUERY_ARGS];
	Datum		values[ES_QUERY_ARGS];
	char		nulls[ES_QUERY_ARGS];	/* 'n' or ' ', as SPI has it */
} EsQuery;

static inline void
EsQueryAdd(EsQuery *query, Oid type, Datum value, bool isnull)
{
	Assert(query->nargs < ES_QUERY_ARGS);
	query->types[query->nargs] = type;
	query->values[query->nargs] = value;
	query->nulls[query->nargs++] = isnull ? 'n' : ' ';
}

static inline void
EsQueryAddText(EsQuery *query, const char *value)
{
	EsQueryAdd(query, TEXTOID, value == NULL ? (Datum) 0 : CStringGetTextDatum(value),
			   value == NULL);
}

static inline void
EsQueryAddInt64(EsQuery *query, int64 value)
{
	EsQueryAdd(query, INT8OID, Int64GetDatum(value), false);
}

extern uint64 EsQueryRun(const char *sql, EsQuery *query);
extern char *EsQueryText(int row, int column);
extern int64 EsQueryInt64(int row, int column);

#endif							/* ES_QUERY_H */
