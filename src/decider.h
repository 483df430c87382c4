/*
 * decider.h: from a state and a command to events or a rejection.
 */
#ifndef ES_DECIDER_H
#define ES_DECIDER_H

#include "postgres.h"

#include "utils/jsonb.h"

#include "aggregate.h"
#include "append.h"

typedef struct EsDecider EsDecider;

/* What is decided, in the memory context in which it was asked for. */
typedef struct EsDecision
{
	char	   *rejection;		/* NULL: accepted */
	int			nevents;
	EsNewEvent *events;
	text	  **stream_ids;		/* of each event, NULL where it says none */
} EsDecision;

extern void EsDeciderInit(void);
extern EsDecider *EsDeciderFind(EsAggregate *aggregate, const text *command_type);
extern bool EsDeciderGivesTags(const EsDecider *decider);
extern void EsDeciderDecide(EsAggregate *aggregate, EsDecider *decider,
							text *stream_id, Jsonb *command,
							EsDecision *decision);

#endif							/* ES_DECIDER_H */
