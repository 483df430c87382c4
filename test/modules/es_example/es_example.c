/*
 * es_example.c: a projection written in C.
 *
 * Keeps, for each stream, the number of its events and the sum of their
 * amounts in a table example_total(stream_id, events, amount).
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "extension/eventstore/eventstore.h"
#include "utils/numeric.h"

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(es_example_add);

/* The statement, prepared once a session. */
static SPIPlanPtr
add_plan(void)
{
	static SPIPlanPtr plan = NULL;
	Oid			types[2] = {TEXTOID, NUMERICOID};

	if (plan != NULL)
		return plan;
	plan = SPI_prepare("INSERT INTO example_total AS t VALUES ($1, 1, $2)"
					   " ON CONFLICT (stream_id) DO UPDATE"
					   " SET events = t.events + 1, amount = t.amount + excluded.amount",
					   2, types);
	if (plan == NULL)
		elog(ERROR, "could not prepare: %s", SPI_result_code_string(SPI_result));
	SPI_keepplan(plan);
	return plan;
}

/*
 * es_example_add(event es_event)
 */
Datum
es_example_add(PG_FUNCTION_ARGS)
{
	EsEvent		event;
	JsonbValue *amount;
	Datum		values[2];

	EsEventRead(PG_GETARG_DATUM(0), &event);
	amount = EsEventGet(&event, "amount");
	if (amount == NULL || amount->type != jbvNumeric)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the event has no numeric amount")));
	values[0] = PointerGetDatum(event.stream_id);
	values[1] = NumericGetDatum(amount->val.numeric);
	SPI_connect();
	if (SPI_execute_plan(add_plan(), values, NULL, false, 0) < 0)
		elog(ERROR, "could not add the amount");
	SPI_finish();
	PG_RETURN_VOID();
}
