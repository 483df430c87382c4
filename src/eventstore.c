/*
 * eventstore.c: the library's entry point.
 *
 * Each room defines the settings it reads; this one only calls them.
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/guc.h"

#include "aggregate.h"
#include "catalog.h"
#include "cloudevent.h"
#include "decider.h"
#include "event_type.h"
#include "kept.h"
#include "lifecycle.h"
#include "metadata.h"
#include "output_plugin.h"
#include "point.h"
#include "projection.h"
#include "runner.h"
#include "stream.h"
#include "subscription.h"
#include "upcast.h"
#include "wake.h"
#include "worker.h"

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
	EsCloudEventInit();
	EsOutputPluginInit();
	EsMetadataInit();
	EsWakeInit();
	EsInlineInit();
	EsRunnerInit();
	EsWorkerInit();
	EsSubscriptionInit();
	EsAggregateInit();
	EsDeciderInit();
	EsKeptInit();
	EsPointInit();
	MarkGUCPrefixReserved("eventstore");
}
