/*
 * projection.h: definitions of projections, and running their handlers.
 */
#ifndef ES_PROJECTION_H
#define ES_PROJECTION_H

#include "postgres.h"

#include "executor/tuptable.h"
#include "nodes/params.h"
#include "utils/rel.h"
#include "utils/tuplestore.h"

#include "catalog.h"
#include "handler.h"
#include "stream.h"

typedef enum EsProjectionStatus
{
	ES_PROJECTION_LIVE,			/* runs */
	ES_PROJECTION_CATCHING_UP,	/* inline, still run in batches */
	ES_PROJECTION_PAUSED,
	ES_PROJECTION_STOPPED		/* by an error */
} EsProjectionStatus;

typedef enum EsOnError
{
	ES_ON_ERROR_STOP,
	ES_ON_ERROR_SKIP,
	ES_ON_ERROR_PARK_STREAM
} EsOnError;

/* One handler's text, and its statements once it has been used. */
typedef struct EsHandler
{
	int			ordinal;
	char	   *event_type;		/* NULL: once a batch */
	int			event_type_len;
	char	   *sql;
	EsStatement *statement;		/* NULL until first used */
} EsHandler;

/* A projection as it is defined; lives in a context of its own. */
typedef struct EsProjection
{
	MemoryContext context;
	char	   *name;
	bool		is_inline;
	EsProjectionStatus status;	/* when read */
	EsOnError	on_error;
	char	   *owner;			/* role in whose name the handlers run */
	char	   *search_path;	/* where they look up names */
	char	   *category;		/* NULL: all */
	int			ntables;
	char	  **tables;			/* read tables, as qualified quoted names */
	int64		position;		/* checkpoint when read */
	int			nhandlers;
	EsHandler  *handlers;		/* by ordinal */
	bool		has_batch;		/* one of them runs once a batch */
	bool		has_single;		/* one of them runs once an event */
	EsScope    *scope;			/* event, for those that run once an event */
	EsScope    *no_scope;		/* for those that run once a batch */
} EsProjection;

/* One pass of a projection's handlers over some events. */
typedef struct EsRun
{
	EsProjection *projection;
	Oid			event_relid;	/* es_event */
	EsRights	rights;			/* to go back to */
	ParamListInfo params;		/* values of event.… */
	MemoryContext context;		/* reset for each event */
	int64		position;		/* of the event at hand; 0: a whole batch */
	char		event_type[ES_MAX_EVENT_TYPE + 1];	/* the event's */
	int			handler;		/* ordinal of the handler at work, or 0 */
	ErrorContextCallback callback;
} EsRun;

/* definitions */
extern int	EsProjectionLoadAll(MemoryContext parent, EsProjection ***projections);
extern EsProjection *EsProjectionLoad(MemoryContext parent, const char *name);
extern EsProjection *EsProjectionLock(const char *name);
extern void EsProjectionFree(EsProjection *projection);
extern void EsProjectionChanged(void);
extern void EsProjectionCheckOwner(const char *name, const char *owner);
extern bool EsProjectionWants(const EsProjection *projection, TupleTableSlot *slot,
							  const text *event_type);
extern bool EsProjectionCovers(const EsProjection *projection, TupleTableSlot *slot);

/* running */
extern void EsRunBegin(EsRun *run, EsProjection *projection, Relation event);
extern void EsRunEvent(EsRun *run, TupleTableSlot *slot);
extern void EsRunBatch(EsRun *run, Tuplestorestate *events, int64 nevents);
extern void EsRunEnd(EsRun *run);

/* the session's compiled definitions (inline.c) */
extern void EsInlineInit(void);
extern EsProjection *EsProjectionGet(const char *name);
extern void EsInlineForbidAppends(bool forbid);

#endif							/* ES_PROJECTION_H */
