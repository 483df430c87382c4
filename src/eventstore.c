/*
 * eventstore.c: the library's entry point.
 *
 * Each room defines the settings it reads; this one only calls them.
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/guc.h"

#include "aggregate.h"
#include "append.h"
#include "catalog.h"
#include "decider.h"
#include "event_type.h"
#include "lifecycle.h"
#include "point.h"
#include "stream.h"
#include "upcast.h"

PG_MODULE_MAGIC;

void		_PG_init(void);

void
_PG_init(void)
{
	EsCatalogInit();
	EsStreamInit();
	EsLifecycleInit();
	EsEventTypeInit();
	EsUpcastInit();
	EsAppendInit();
	EsAggregateInit();
	EsDeciderInit();
	EsPointInit();
	MarkGUCPrefixReserved("eventstore");
}
