/*
 * handler.h: compile and run the SQL that users register.
 *
 * A text sees named variables ("event", "state", "command").  Of a composite
 * variable, name.column is a parameter of its own and the bare name the whole
 * row; of any other, only the bare name exists.  A statement text may hold
 * any number of statements; an expression text is one bare expression.
 */
#ifndef ES_HANDLER_H
#define ES_HANDLER_H

#include "postgres.h"

#include "access/tupdesc.h"
#include "executor/spi.h"
#include "executor/tuptable.h"
#include "nodes/bitmapset.h"
#include "nodes/execnodes.h"
#include "nodes/params.h"
#include "utils/plancache.h"

#define ES_SCOPE_VARIABLES 4

/* One name that a text may use. */
typedef struct EsVariable
{
	const char *name;
	Oid			type;
	int32		typmod;
	Oid			collation;
	TupleDesc	desc;			/* of a composite type, else NULL */
	int			param;			/* number of the whole value's parameter;
								 * column n is parameter param + n */
} EsVariable;

/* All names that a text may use.  Lives as long as what was compiled with it. */
typedef struct EsScope
{
	MemoryContext context;		/* of the scope itself */
	int			nvariables;
	EsVariable	variables[ES_SCOPE_VARIABLES];
	int			nparams;
} EsScope;

/* What statements and expressions have in common: text, scope, use. */
typedef struct EsText
{
	char	   *sql;
	const EsScope *scope;
	Bitmapset  *used;			/* parameters that occur in it */
	MemoryContext context;		/* of all this */
} EsText;

typedef struct EsStatement
{
	EsText		text;
	SPIPlanPtr	plan;			/* kept; follows invalidations by itself */
} EsStatement;

typedef struct EsExpression
{
	EsText		text;
	Oid			type;			/* of the result */
	int32		typmod;
	List	   *functions;		/* users' functions it calls, by OID */
	bool		is_immutable;	/* its value depends on nothing but its inputs */
	bool		is_plain;		/* and it runs no code of users, so no name is
								 * ever looked up while it runs */
	CachedExpression *cached;	/* planned; not valid after an invalidation */
} EsExpression;

/* In whose name registered SQL runs, and where its names are looked up. */
typedef struct EsDefiner
{
	Oid			role;
	const char *search_path;	/* as a value for the setting */
} EsDefiner;

/* What to go back to after running in a definer's name. */
typedef struct EsRights
{
	Oid			userid;
	int			sec_context;
	int			nest_level;		/* 0: the search_path was left as it is */
} EsRights;

extern EsScope *EsScopeCreate(MemoryContext context);
extern int	EsScopeAdd(EsScope *scope, const char *name, Oid type, int32 typmod);
extern ParamListInfo EsParamsCreate(const EsScope *scope);
extern void EsParamSet(ParamListInfo params, int param, Datum value, bool isnull);
extern void EsParamsSetSlot(ParamListInfo params, const EsVariable *variable,
							const Bitmapset *used, TupleTableSlot *slot);

extern char *EsCurrentSearchPath(void);
extern void EsRightsEnter(const EsDefiner *definer, EsRights *saved);
extern void EsRightsEnterFor(const EsExpression *expression,
							 const EsDefiner *definer, EsRights *saved);
extern void EsRightsLeave(const EsRights *saved);

extern EsStatement *EsStatementCompile(MemoryContext context, const char *sql,
									   const EsScope *scope);
extern uint64 EsStatementRun(EsStatement *statement, ParamListInfo params,
							 bool read_only);
extern void EsStatementFree(EsStatement *statement);

extern EsExpression *EsExpressionCompile(MemoryContext context, const char *sql,
										 const EsScope *scope,
										 Oid type, int32 typmod);
extern Expr *EsExpressionPlanned(EsExpression *expression);
extern void EsExpressionFree(EsExpression *expression);

#endif							/* ES_HANDLER_H */
