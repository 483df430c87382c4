/*
 * type_check.h: checks of event types.
 */
#ifndef ES_TYPE_CHECK_H
#define ES_TYPE_CHECK_H

#include "postgres.h"

#include "nodes/execnodes.h"
#include "nodes/pg_list.h"

#include "append.h"
#include "versioned.h"

/* A declared version of an event type. */
typedef struct EsEventType
{
	EsVersioned versioned;		/* must be first */
	List	   *templates;		/* see template.c */
	ExprState  *program;		/* of the check, for one transaction; NULL: not yet */
} EsEventType;

extern bool EsTypeCheckIsRunning(void);
extern void EsTypeCheckForget(void);
extern void EsTypeCheckCompile(const EsVersionedSet *set, EsEventType *type);
extern void EsTypeCheck(const EsVersionedSet *set, EsEventType *type,
						text *stream_id, const EsNewEvent *event);

#endif							/* ES_TYPE_CHECK_H */
