/*
 * metadata.c: what the session says of each event that it appends.
 *
 * The setting eventstore.metadata is parsed once for each value it takes, and
 * merged under the metadata of every event, whatever way it comes.
 */
#include "postgres.h"

#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"

#include "compat.h"
#include "metadata.h"

/* The setting, and the same parsed; NULL when empty. */
static char *session_metadata_text = NULL;
static Jsonb *session_metadata = NULL;
static bool session_metadata_stale = true;

static bool
check_metadata(char **newval, void **extra, GucSource source)
{
	const char *text = *newval;

	if (text == NULL || *text == '\0')
		return true;
	if (text[strspn(text, " \t\n\r")] == '{' && EsJsonIsValid(text))
		return true;
	GUC_check_errdetail("\"eventstore.metadata\" must be a JSON object.");
	return false;
}

static void
assign_metadata(const char *newval, void *extra)
{
	session_metadata_stale = true;
}

void
EsMetadataInit(void)
{
	DefineCustomStringVariable("eventstore.metadata",
							   "JSON object merged under the metadata of each event appended.",
							   "For what the application knows once a transaction: user, correlation_id, causation_id, traceparent. "
							   "Set it with SET LOCAL; keys of an event's own metadata win.",
							   &session_metadata_text, "", PGC_USERSET,
							   0,
							   check_metadata, assign_metadata, NULL);
}

/* eventstore.metadata as jsonb, parsed once for each value it takes. */
static Jsonb *
current_session_metadata(void)
{
	if (!session_metadata_stale)
		return session_metadata;
	if (session_metadata != NULL)
		pfree(session_metadata);
	session_metadata = NULL;
	if (session_metadata_text != NULL && *session_metadata_text != '\0')
	{
		Datum		parsed = DirectFunctionCall1(jsonb_in,
												 CStringGetDatum(session_metadata_text));
		MemoryContext saved;

		saved = MemoryContextSwitchTo(TopMemoryContext);
		session_metadata = DatumGetJsonbPCopy(parsed);
		MemoryContextSwitchTo(saved);
	}
	session_metadata_stale = false;
	return session_metadata;
}

/*
 * The metadata an event is stored with: the session's, with the event's own
 * on top.  NULL when there is neither; 22023 unless it is an object.
 */
Jsonb *
EsMergeMetadata(Jsonb *metadata)
{
	Jsonb	   *session = current_session_metadata();

	if (metadata != NULL && !JB_ROOT_IS_OBJECT(metadata))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("metadata must be a JSON object")));
	if (session == NULL)
		return metadata;
	if (metadata == NULL)		/* a copy: the cached one may go under a trigger */
		return DatumGetJsonbPCopy(JsonbPGetDatum(session));
	return DatumGetJsonbP(DirectFunctionCall2(jsonb_concat,
											  JsonbPGetDatum(session),
											  JsonbPGetDatum(metadata)));
}
