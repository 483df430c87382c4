/*
 * command_id.h: what was answered to a command that came with an id.
 */
#ifndef ES_COMMAND_ID_H
#define ES_COMMAND_ID_H

#include "postgres.h"

#include "utils/jsonb.h"
#include "utils/uuid.h"

/* A command as it was given. */
typedef struct EsCommand
{
	text	   *stream_id;		/* NULL: none */
	text	   *type;
	Jsonb	   *payload;
	bool		has_id;
	pg_uuid_t	id;
	char	   *aggregate;
	pg_uuid_t	digest;			/* of the above but the id; if there is one */
} EsCommand;

extern void EsCommandDigest(EsCommand *command);
extern bool EsCommandWasHandled(const EsCommand *command, int64 *answer);
extern void EsCommandRemember(const EsCommand *command, int64 answer);

#endif							/* ES_COMMAND_ID_H */
