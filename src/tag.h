/*
 * tag.h: the rows of es_event_tag, and the locks on tags.
 */
#ifndef ES_TAG_H
#define ES_TAG_H

#include "postgres.h"

#include "access/xlogdefs.h"
#include "utils/array.h"
#include "utils/jsonb.h"

#include "catalog.h"
#include "stream.h"

/* A way into es_event_tag; see EsTagWriterBegin. */
typedef struct EsTagWriter EsTagWriter;

extern ArrayType *EsCheckTags(ArrayType *tags);
extern ArrayType *EsTagsOfJson(JsonbContainer *json);
extern int	EsTagsDeconstruct(ArrayType *tags, Datum **elements);
extern int	EsTagsAddKeys(ArrayType *tags, LOCKMODE mode, EsLockKey *keys);

extern int64 EsTagLastPosition(text *tag);

extern EsTagWriter *EsTagWriterBegin(void);
extern void EsTagWriterAdd(EsTagWriter *writer, ArrayType *tags,
						   int64 position, const text *event_type);
extern void EsTagWriterEnd(EsTagWriter *writer);

extern void EsTagsExpect(ArrayType *tags, int64 position);

#endif							/* ES_TAG_H */
