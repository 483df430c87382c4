/*
 * template.h: tags made of an event's data.
 */
#ifndef ES_TEMPLATE_H
#define ES_TEMPLATE_H

#include "postgres.h"

#include "nodes/pg_list.h"
#include "utils/array.h"
#include "utils/jsonb.h"

extern List *EsTemplatesParse(ArrayType *templates);
extern ArrayType *EsTemplatesExpand(List *templates, Jsonb *data,
									ArrayType *given);

#endif							/* ES_TEMPLATE_H */
