/*
 * aggregate.h: what a state is made of, and how.
 */
#ifndef ES_AGGREGATE_H
#define ES_AGGREGATE_H

#include "postgres.h"

#include "fmgr.h"
#include "nodes/execnodes.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "definition.h"
#include "handler.h"
#include "query_template.h"

/* Columns of es_aggregate; the table's definition rules. */
typedef enum EsAggregateColumn
{
	ES_AGGREGATE_NAME = 1,
	ES_AGGREGATE_CATEGORY,
	ES_AGGREGATE_INITIAL,
	ES_AGGREGATE_TYPE,
	ES_AGGREGATE_EVERY,
	ES_AGGREGATE_INTERVAL,
	ES_AGGREGATE_BOUNDARY,
	ES_AGGREGATE_OWNER,
	ES_AGGREGATE_PATH
} EsAggregateColumn;

#define ES_MAX_AGGREGATE (NAMEDATALEN - 1)	/* bytes of a name */

typedef struct EsDeciders EsDeciders;

/* A column of es_event that an expression uses. */
typedef struct EsEventUse
{
	AttrNumber	column;
	bool		plain;			/* used more than once: detoast it first */
} EsEventUse;

/* What one event type does to the state. */
typedef struct EsEvolver
{
	char	   *event_type;
	int			event_type_len;
	uint32		hash;			/* of the event type; see fold.c */
	EsExpression *expression;
	/* set by the fold, for one transaction; program NULL: not yet */
	ProjectionInfo *program;	/* writes the next state into its slot */
	bool		whole_result;	/* one value, else the fields that change */
	bool		uses_state;		/* the whole composite state is an input */
	int			nchanged;
	int		   *changed;		/* fields that the program writes */
	int			nuses;
	EsEventUse *uses;			/* columns of the event that are inputs */
	AttrNumber	last_column;	/* of those */
} EsEvolver;

/* An aggregate, compiled for this session. */
typedef struct EsAggregate
{
	char	   *name;
	MemoryContext context;		/* of all this */
	uint64		generation;		/* of the definitions it was made from */
	EsDefiner	definer;
	List	   *relations;		/* whose columns the state is made of */
	uint32		type_hash;		/* of the state's type, in its syscache */
	uint32		role_hash;		/* of the owner, likewise */
	List	   *function_hashes;	/* of the functions called, likewise; ints */
	Oid			state_type;
	TupleDesc	row;			/* of a composite state, else NULL */
	TupleDesc	fields;			/* the row, or one column for the state */
	int			nfields;
	bool		initial_null;	/* the state begins as NULL */
	Datum		initial;		/* the whole state */
	EsQueryTemplate *boundary;	/* whose events are folded; NULL: a stream's */
	int			snapshot_every; /* 0: not by number */
	Interval   *snapshot_interval;	/* NULL: not by time */
	pg_uuid_t	definition;		/* digest of all that determines the state */
	bool		is_immutable;	/* but the settings of the session */
	EsScope    *scope;			/* state and event; with a boundary, command */
	int			nevolvers;
	EsEvolver  *evolvers;		/* by event type */
	uint32		hash_mask;		/* of the table below */
	EsEvolver **by_hash;		/* by hash of the event type, open addressing */
	EsDeciders *deciders;	/* decider.c's, in this context */
	uint64		upcasters;		/* EsUpcastGeneration() of the two below */
	pg_uuid_t	upcast_digest;	/* what upcasters do to the events that matter */
	bool		upcast_settings;	/* it depends on the settings of the session */

	/* one fold at a time */
	ParamListInfo params;		/* the state and the current event */
	void	  **outdated;		/* room for as many pointers as fields */
	ParamExternData *state;		/* the fields, inside params */
	bool		state_null;		/* the whole state is NULL */
	MemoryContext program_context;	/* programs, for one transaction */
	MemoryContext state_context;	/* the fields' values */
	ExprContext *econtext;		/* its per-tuple memory is the event's */
	ExprState  *to_jsonb;		/* the state as jsonb; NULL: not yet */
	LocalTransactionId lxid;	/* whose programs these are */
	SubTransactionId user;		/* who folds; invalid: nobody */
	uint64		forgotten;		/* how often programs were dropped */
	bool		transient;		/* not in the cache, goes when closed */
} EsAggregate;

/* Called when definitions were changed, to check what else depends on them. */
typedef void (*EsDependentsCheck) (EsAggregate *aggregate);

extern void EsAggregateInit(void);
extern void EsAggregateOnChange(EsDependentsCheck check);
extern uint64 EsAggregateGeneration(void);
extern void EsReportNoAggregate(const char *name);
extern EsAggregate *EsAggregateOpen(const char *name);
extern bool EsAggregateExists(const char *name);
extern void EsAggregateKeep(EsAggregate *aggregate);
extern void EsAggregateClose(EsAggregate *aggregate);
extern void EsAggregateCheck(const char *name);
extern char *EsOwnAggregateArgument(FunctionCallInfo fcinfo, int n,
									const char *argument);
extern void EsAggregatePartWrite(FunctionCallInfo fcinfo, const char *aggregate,
								 Oid table, int ncolumns);
extern void EsAggregatePartDrop(FunctionCallInfo fcinfo, Oid table,
								const char *argument,
								const char *what) pg_attribute_printf(4, 0);

#endif							/* ES_AGGREGATE_H */
