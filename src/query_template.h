/*
 * query_template.h: a query with placeholders in its tags.
 */
#ifndef ES_QUERY_TEMPLATE_H
#define ES_QUERY_TEMPLATE_H

#include "postgres.h"

#include "utils/jsonb.h"

#include "match.h"

typedef struct EsQueryTemplate EsQueryTemplate;

extern EsQueryTemplate *EsQueryTemplateParse(Jsonb *json);
extern EsBoundary *EsQueryTemplateFill(const EsQueryTemplate *template,
									   Jsonb *command);

#endif							/* ES_QUERY_TEMPLATE_H */
