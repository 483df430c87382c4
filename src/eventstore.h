/*
 * eventstore.h: for extensions in C that handle events.
 *
 * A projection's handler may be a C function that is given the whole event:
 *
 *	SELECT es_on('my_projection', 'Deposited', 'SELECT my_handler(event)');
 *
 *	CREATE FUNCTION my_handler(event es_event) RETURNS void
 *		AS 'MODULE_PATHNAME' LANGUAGE C STRICT;
 *
 *	Datum
 *	my_handler(PG_FUNCTION_ARGS)
 *	{
 *		EsEvent		event;
 *
 *		EsEventRead(PG_GETARG_DATUM(0), &event);
 *		...
 *		PG_RETURN_VOID();
 *	}
 *
 * The function runs in the name of the projection's owner, under the owner's
 * search_path, inside the transaction of the append (inline) or of the batch
 * (async).  It may use SPI.  Names of read tables must be left unqualified,
 * so that a rebuild can point them at other tables; plans kept with
 * SPI_keepplan() follow search_path by themselves.  An error rejects the
 * append, or is dealt with as the projection's on_error says.
 *
 * All values live as long as the function's memory context; copy what is to
 * live longer.
 */
#ifndef EVENTSTORE_H
#define EVENTSTORE_H

#include "postgres.h"

#include "access/htup_details.h"
#include "datatype/timestamp.h"
#include "fmgr.h"
#include "utils/array.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"
#include "utils/uuid.h"

/* An event's columns, as es_event defines them. */
typedef struct EsEvent
{
	int64		position;		/* in the global log */
	int64		version;		/* in its stream */
	TimestampTz recorded_at;
	pg_uuid_t  *event_id;
	int32		type_version;
	text	   *stream_id;
	text	   *event_type;
	Jsonb	   *data;
	Jsonb	   *metadata;		/* NULL: none */
	ArrayType  *tags;			/* text[]; NULL: none */
} EsEvent;

#define ES_EVENT_COLUMNS 10

/* Read an event that a handler was given as a composite. */
static inline void
EsEventRead(Datum composite, EsEvent *event)
{
	HeapTupleHeader header = DatumGetHeapTupleHeader(composite);
	TupleDesc	desc = lookup_rowtype_tupdesc(HeapTupleHeaderGetTypeId(header),
											  HeapTupleHeaderGetTypMod(header));
	HeapTupleData tuple;
	Datum	   *values = (Datum *) palloc(desc->natts * sizeof(Datum));
	bool	   *nulls = (bool *) palloc(desc->natts * sizeof(bool));

	if (desc->natts < ES_EVENT_COLUMNS)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("argument is not an event")));
	tuple.t_len = HeapTupleHeaderGetDatumLength(header);
	ItemPointerSetInvalid(&tuple.t_self);
	tuple.t_tableOid = InvalidOid;
	tuple.t_data = header;
	heap_deform_tuple(&tuple, desc, values, nulls);
	ReleaseTupleDesc(desc);

	event->position = DatumGetInt64(values[0]);
	event->version = DatumGetInt64(values[1]);
	event->recorded_at = DatumGetTimestampTz(values[2]);
	event->event_id = DatumGetUUIDP(values[3]);
	event->type_version = DatumGetInt32(values[4]);
	event->stream_id = DatumGetTextPP(values[5]);
	event->event_type = DatumGetTextPP(values[6]);
	event->data = DatumGetJsonbP(values[7]);
	event->metadata = nulls[8] ? NULL : DatumGetJsonbP(values[8]);
	event->tags = nulls[9] ? NULL : DatumGetArrayTypeP(values[9]);
	pfree(values);
	pfree(nulls);
}

/*
 * A member of an event's data by name, or NULL.  The value is the caller's;
 * numbers are value->val.numeric, strings value->val.string.
 */
static inline JsonbValue *
EsEventGet(const EsEvent *event, const char *name)
{
	if (!JB_ROOT_IS_OBJECT(event->data))
		return NULL;
	return getKeyJsonValueFromContainer(&event->data->root, name, strlen(name), NULL);
}

#endif							/* EVENTSTORE_H */
