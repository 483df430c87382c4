/*
 * row_security.c: what the store does where row security applies.
 *
 * Policies on es_event are the executor's to enforce.  SELECT and INSERT go
 * through it and honour them.  The functions reach the table directly, so one
 * who is subject to a policy is refused by all that would show an event, or
 * tell something that only the events say (EsCheckPrivilege, or EsRowSecurityRefuse
 * where no privilege on es_event is asked).
 *
 * INSERT needs one thing more.  The trigger that gives a row its place looks
 * at the stream before the executor checks the row against the policy, and what
 * it has to say (a version, a tombstone) may be of a stream that the caller
 * must not know of.  So before it says so it asks, by the executor and as the
 * caller: is there an event of that stream that you may see?  If not, the row
 * is refused in the words that the executor has for a row that no policy admits.
 * So an INSERT into a stream of others gets the one answer, whatever the
 * stream is like, and whether there is one.
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"

#include "catalog.h"
#include "point.h"
#include "row_security.h"

/* 0A000 for one who comes to run what others defined, and is subject to policies. */
void
EsRowSecurityRefuseCaller(void)
{
	const EsStore *store;
	Relation	event = EsEventOpen(&store, AccessShareLock);

	EsRowSecurityRefuse(event);
	table_close(event, AccessShareLock);
}

/* Does any policy let the current user see an event of the stream? */
static bool
sees_stream(Relation event, text *stream_id)
{
	Oid			types[] = {TEXTOID};
	Datum		values[] = {PointerGetDatum(stream_id)};
	char	   *query = psprintf("SELECT FROM %s WHERE stream_id OPERATOR(pg_catalog.=) $1",
								 quote_qualified_identifier(EsSchemaName(),
															RelationGetRelationName(event)));
	bool		sees;

	if (pg_class_aclcheck(RelationGetRelid(event), GetUserId(), ACL_SELECT) != ACLCHECK_OK)
		return false;
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	if (SPI_execute_with_args(query, 1, types, values, NULL, true, 1) < 0)
		elog(ERROR, "could not run \"%s\"", query);
	sees = SPI_processed > 0;
	SPI_finish();
	pfree(query);
	return sees;
}

/*
 * Called before something is said of a stream that an INSERT names: 42501, and
 * nothing more, unless the current user may know of the stream.
 */
void
EsRowSecurityHide(Relation event, text *stream_id)
{
	if (ES_BUG == 118 || !EsRowSecurityApplies(event) || sees_stream(event, stream_id))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("new row violates row-level security policy for table \"%s\"",
					RelationGetRelationName(event))));
}
