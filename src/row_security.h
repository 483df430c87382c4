/*
 * row_security.h: what the store does where row security applies.
 */
#ifndef ES_ROW_SECURITY_H
#define ES_ROW_SECURITY_H

#include "postgres.h"

#include "utils/rel.h"

extern void EsRowSecurityRefuseCaller(void);
extern void EsRowSecurityHide(Relation event, text *stream_id);

#endif							/* ES_ROW_SECURITY_H */
