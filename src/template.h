/*
 * template.h: texts with placeholders, to be filled from JSON.
 */
#ifndef ES_TEMPLATE_H
#define ES_TEMPLATE_H

#include "postgres.h"

#include "nodes/pg_list.h"
#include "utils/jsonb.h"

typedef struct EsTemplate EsTemplate;

extern EsTemplate *EsTemplateParse(const char *template);
extern List *EsTemplateExpand(const EsTemplate *template, Jsonb *data,
							  bool *complete);

#endif							/* ES_TEMPLATE_H */
