/*
 * handler.c: compile and run the SQL that users register.
 *
 * Names of the scope become external parameters through the parser's column
 * reference hooks, the way procedural languages do it.  A qualified name
 * (event.data) is ours before any table is asked, so a column of a read
 * table can never capture it; a bare name (state) is ours only where no
 * column answers to it.
 *
 * Registered SQL runs in the name of the role that defined it, with the
 * search_path that it was defined under, and unless that is the caller
 * itself, as a security-restricted operation: what it may not do there
 * (SET ROLE, temporary tables, triggers deferred into the caller's commit)
 * are the ways in which a definer could act in the caller's name.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/transam.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/analyze.h"
#include "parser/parse_coerce.h"
#include "parser/parse_collate.h"
#include "parser/parse_expr.h"
#include "parser/parse_node.h"
#include "parser/parser.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/typcache.h"

#include "handler.h"

/* ----- scope ----- */

EsScope *
EsScopeCreate(MemoryContext context)
{
	EsScope    *scope = MemoryContextAllocZero(context, sizeof(EsScope));

	scope->context = context;
	return scope;
}

/* Add a variable; answers the number of its whole value's parameter. */
int
EsScopeAdd(EsScope *scope, const char *name, Oid type, int32 typmod)
{
	MemoryContext saved = MemoryContextSwitchTo(scope->context);
	EsVariable *variable = &scope->variables[scope->nvariables++];

	Assert(scope->nvariables <= ES_SCOPE_VARIABLES);
	variable->name = pstrdup(name);
	variable->type = type;
	variable->typmod = typmod;
	variable->collation = get_typcollation(type);
	variable->param = scope->nparams + 1;
	scope->nparams++;
	if (type_is_rowtype(type) && type != RECORDOID)
	{
		TupleDesc	desc = lookup_rowtype_tupdesc_domain(type, typmod, false);

		variable->desc = CreateTupleDescCopy(desc);
		ReleaseTupleDesc(desc);
		scope->nparams += variable->desc->natts;
	}
	MemoryContextSwitchTo(saved);
	return variable->param;
}

/* Values for all names of a scope, each NULL at first. */
ParamListInfo
EsParamsCreate(const EsScope *scope)
{
	ParamListInfo params = makeParamList(scope->nparams);

	for (int i = 0; i < scope->nvariables; i++)
	{
		const EsVariable *variable = &scope->variables[i];
		int			natts = variable->desc == NULL ? 0 : variable->desc->natts;

		for (int n = 0; n <= natts; n++)
		{
			ParamExternData *param = &params->params[variable->param - 1 + n];

			param->value = (Datum) 0;
			param->isnull = true;
			param->pflags = 0;
			param->ptype = n == 0 ? variable->type :
				TupleDescAttr(variable->desc, n - 1)->atttypid;
		}
	}
	return params;
}

void
EsParamSet(ParamListInfo params, int param, Datum value, bool isnull)
{
	params->params[param - 1].value = value;
	params->params[param - 1].isnull = isnull;
}

/*
 * Set a composite variable from a row: those columns that are used, and the
 * whole row where that is.  The values point into the slot; the whole row is
 * made in the current memory context.
 */
void
EsParamsSetSlot(ParamListInfo params, const EsVariable *variable,
				const Bitmapset *used, TupleTableSlot *slot)
{
	int			last = variable->param + variable->desc->natts;
	int			param = variable->param - 1;

	while ((param = bms_next_member(used, param)) >= 0 && param <= last)
	{
		ParamExternData *prm = &params->params[param - 1];

		if (param == variable->param)
		{
			prm->value = ExecFetchSlotHeapTupleDatum(slot);
			prm->isnull = false;
		}
		else
			prm->value = slot_getattr(slot, param - variable->param, &prm->isnull);
	}
}

/* ----- names in a text ----- */

static Node *
make_param(EsText *text, int number, Oid type, int32 typmod, Oid collation,
		   int location)
{
	Param	   *param = makeNode(Param);
	MemoryContext saved = MemoryContextSwitchTo(text->context);

	text->used = bms_add_member(text->used, number);
	MemoryContextSwitchTo(saved);
	param->paramkind = PARAM_EXTERN;
	param->paramid = number;
	param->paramtype = type;
	param->paramtypmod = typmod;
	param->paramcollid = collation;
	param->location = location;
	return (Node *) param;
}

static const EsVariable *
find_variable(const EsScope *scope, const char *name)
{
	for (int i = 0; i < scope->nvariables; i++)
		if (strcmp(scope->variables[i].name, name) == 0)
			return &scope->variables[i];
	return NULL;
}

static Node *
whole_variable(EsText *text, const EsVariable *variable, int location)
{
	return make_param(text, variable->param, variable->type, variable->typmod,
					  variable->collation, location);
}

/*
 * variable.column; 42703 where the type has no such column.
 *
 * It has its type's collation, not the column's: that of a read table's
 * column then prevails in a comparison, as the use of its index demands.
 */
static Node *
variable_column(ParseState *pstate, EsText *text, const EsVariable *variable,
				const char *column, int location)
{
	for (int i = 0; i < variable->desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(variable->desc, i);

		if (!att->attisdropped && strcmp(NameStr(att->attname), column) == 0)
			return make_param(text, variable->param + i + 1, att->atttypid,
							  att->atttypmod, get_typcollation(att->atttypid),
							  location);
	}
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_COLUMN),
			 errmsg("column %s.%s does not exist", variable->name, column),
			 parser_errposition(pstate, location)));
	return NULL;
}

/* event.column and event.*: ours before any table is asked. */
static Node *
resolve_qualified(ParseState *pstate, ColumnRef *ref)
{
	EsText	   *text = pstate->p_ref_hook_state;
	Node	   *field;
	const EsVariable *variable;

	if (list_length(ref->fields) != 2)
		return NULL;
	variable = find_variable(text->scope, strVal(linitial(ref->fields)));
	if (variable == NULL || variable->desc == NULL)
		return NULL;
	field = lsecond(ref->fields);
	if (IsA(field, A_Star))
		return whole_variable(text, variable, ref->location);
	return variable_column(pstate, text, variable, strVal(field), ref->location);
}

/* A bare name: ours where no column answers to it. */
static Node *
resolve_bare(ParseState *pstate, ColumnRef *ref, Node *column)
{
	EsText	   *text = pstate->p_ref_hook_state;
	const EsVariable *variable;

	if (column != NULL || list_length(ref->fields) != 1 ||
		!IsA(linitial(ref->fields), String))
		return NULL;
	variable = find_variable(text->scope, strVal(linitial(ref->fields)));
	return variable == NULL ? NULL : whole_variable(text, variable, ref->location);
}

static void
setup_parser(ParseState *pstate, void *text)
{
	pstate->p_pre_columnref_hook = resolve_qualified;
	pstate->p_post_columnref_hook = resolve_bare;
	pstate->p_ref_hook_state = text;
}

static void
init_text(EsText *text, MemoryContext context, const char *sql,
		  const EsScope *scope)
{
	text->context = context;
	text->sql = MemoryContextStrdup(context, sql);
	text->scope = scope;
	text->used = NULL;
}

/* ----- rights ----- */

/*
 * The search_path now in force, as a value for the setting, with the schemas
 * named as they are and pg_temp last, where it cannot capture anything.
 */
char *
EsCurrentSearchPath(void)
{
	StringInfoData path;
	List	   *schemas = fetch_search_path(false);
	ListCell   *cell;

	initStringInfo(&path);
	foreach(cell, schemas)
	{
		char	   *name;

		if (isTempNamespace(lfirst_oid(cell)) ||
			(name = get_namespace_name(lfirst_oid(cell))) == NULL)
			continue;
		appendStringInfo(&path, "%s, ", quote_identifier(name));
	}
	appendStringInfoString(&path, "pg_temp");
	list_free(schemas);
	return path.data;
}

static void
enter_role(const EsDefiner *definer, EsRights *saved)
{
	int			restriction = SECURITY_LOCAL_USERID_CHANGE;

	GetUserIdAndSecContext(&saved->userid, &saved->sec_context);
	if (definer->role != saved->userid)
		restriction |= SECURITY_RESTRICTED_OPERATION;
	SetUserIdAndSecContext(definer->role, saved->sec_context | restriction);
	saved->nest_level = 0;
}

/*
 * Begin to act in the definer's name.  An error on the way needs no clean-up:
 * the abort of the (sub)transaction restores user and settings.
 */
void
EsRightsEnter(const EsDefiner *definer, EsRights *saved)
{
	enter_role(definer, saved);
	saved->nest_level = NewGUCNestLevel();
	if (strcmp(namespace_search_path, definer->search_path) != 0)
		(void) set_config_option("search_path", definer->search_path,
								 PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE,
								 true, 0, false);
}

/*
 * The same for as long as one expression is evaluated.  To change the path
 * and to change it back costs more than most expressions, so it is left as it
 * is for one that cannot know of it.
 */
void
EsRightsEnterFor(const EsExpression *expression, const EsDefiner *definer,
				 EsRights *saved)
{
	if (expression->is_plain)
		enter_role(definer, saved);
	else
		EsRightsEnter(definer, saved);
}

void
EsRightsLeave(const EsRights *saved)
{
	if (saved->nest_level > 0)
		AtEOXact_GUC(true, saved->nest_level);
	SetUserIdAndSecContext(saved->userid, saved->sec_context);
}

/* ----- statements ----- */

/*
 * Parse, analyze and keep a text of one or more statements.  Call inside SPI,
 * with the definer's rights and path, and with the ephemeral relations that
 * the text may use registered.  Errors point into the text.
 */
EsStatement *
EsStatementCompile(MemoryContext context, const char *sql, const EsScope *scope)
{
	EsStatement *statement = MemoryContextAllocZero(context, sizeof(EsStatement));
	SPIPrepareOptions options = {0};

	init_text(&statement->text, context, sql, scope);
	options.parserSetup = setup_parser;
	options.parserSetupArg = &statement->text;
	options.parseMode = RAW_PARSE_DEFAULT;
	statement->plan = SPI_prepare_extended(sql, &options);
	if (statement->plan == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot use this statement here: %s",
						SPI_result_code_string(SPI_result))));
	if (SPI_plan_get_plan_sources(statement->plan) == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the text holds no statement")));
	SPI_keepplan(statement->plan);
	return statement;
}

/*
 * Run the statements; answers the number of rows the last one processed.
 * Call inside SPI, with the definer's rights and path.
 */
uint64
EsStatementRun(EsStatement *statement, ParamListInfo params, bool read_only)
{
	SPIExecuteOptions options = {0};
	int			result;

	options.params = params;
	options.read_only = read_only;
	result = SPI_execute_plan_extended(statement->plan, &options);
	if (result < 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot run this statement here: %s",
						SPI_result_code_string(result))));
	return SPI_processed;
}

/* Drop the kept plan; the rest goes with its memory context. */
void
EsStatementFree(EsStatement *statement)
{
	SPI_freeplan(statement->plan);
	statement->plan = NULL;
}

/* ----- expressions ----- */

/* Turn a position in the user's call into one inside the registered text. */
static void
point_into_text(void *arg)
{
	const EsText *text = arg;
	int			position = geterrposition();

	if (position > 0)
	{
		errposition(0);
		internalerrposition(position);
		internalerrquery(text->sql);
	}
}

/* The raw expression of a text that is nothing but one. */
static Node *
raw_expression(const EsText *text)
{
	List	   *parsed = raw_parser(text->sql, RAW_PARSE_PLPGSQL_EXPR);
	SelectStmt *select = (SelectStmt *) linitial_node(RawStmt, parsed)->stmt;
	ResTarget  *target;

	if (!IsA(select, SelectStmt) || list_length(select->targetList) != 1 ||
		select->distinctClause || select->intoClause || select->fromClause ||
		select->whereClause || select->groupClause || select->havingClause ||
		select->windowClause || select->sortClause || select->limitOffset ||
		select->limitCount || select->lockingClause)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("the text must be one expression and nothing else")));
	target = linitial_node(ResTarget, select->targetList);
	if (target->name != NULL || target->indirection != NIL)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("an expression takes no name"),
				 errposition(target->location + 1)));
	return target->val;
}

static void
reject_in_expression(bool present, const char *what)
{
	if (present)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot use %s in this expression", what)));
}

/* Parse and analyze; the result has the wanted type, or 42804. */
static Node *
analyze_expression(EsText *text, Oid type, int32 typmod)
{
	ParseState *pstate = make_parsestate(NULL);
	Node	   *raw = raw_expression(text);
	Node	   *expr;
	Node	   *coerced;
	Oid			given;

	pstate->p_sourcetext = text->sql;
	setup_parser(pstate, text);
	expr = transformExpr(pstate, raw, EXPR_KIND_SELECT_TARGET);
	reject_in_expression(pstate->p_hasSubLinks, "a subquery");
	reject_in_expression(pstate->p_hasAggs, "an aggregate function");
	reject_in_expression(pstate->p_hasWindowFuncs, "a window function");
	reject_in_expression(pstate->p_hasTargetSRFs, "a set-returning function");

	given = exprType(expr);
	coerced = coerce_to_target_type(pstate, expr, given, type, typmod,
									COERCION_ASSIGNMENT, COERCE_IMPLICIT_CAST,
									-1);
	if (coerced == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("the expression is of type %s but must be of type %s",
						format_type_be(given), format_type_be(type)),
				 errhint("You will need to rewrite or cast the expression."),
				 parser_errposition(pstate, exprLocation(expr))));
	assign_expr_collations(pstate, coerced);
	free_parsestate(pstate);
	return coerced;
}

static bool
note_function(Oid function, void *expression)
{
	EsExpression *expr = expression;

	if (function >= FirstNormalObjectId)
		expr->functions = list_append_unique_oid(expr->functions, function);
	return false;
}

/* Note the functions that users wrote, before any of them is inlined. */
static bool
note_functions(Node *node, void *expression)
{
	if (node == NULL)
		return false;
	(void) check_functions_in_node(node, note_function, expression);
	return expression_tree_walker(node, note_functions, expression);
}

/* The constraints of a domain may be anything. */
static bool
has_domain(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, CoerceToDomain))
		return true;
	return expression_tree_walker(node, has_domain, context);
}

static void
plan_expression(EsExpression *expression)
{
	ErrorContextCallback callback;
	MemoryContext saved;
	Node	   *expr;

	callback.callback = point_into_text;
	callback.arg = &expression->text;
	callback.previous = error_context_stack;
	error_context_stack = &callback;
	expr = analyze_expression(&expression->text, expression->type,
							  expression->typmod);
	error_context_stack = callback.previous;
	saved = MemoryContextSwitchTo(expression->text.context);
	expression->functions = NIL;
	(void) note_functions(expr, expression);
	MemoryContextSwitchTo(saved);
	expression->is_immutable = !contain_mutable_functions(expr);
	expression->is_plain = expression->is_immutable &&
		expression->functions == NIL && !has_domain(expr, NULL);
	expression->cached = GetCachedExpression(expr);
}

/*
 * Compile a bare expression over a scope into one of the given type.  Call
 * with the definer's rights and path.  Errors point into the text.
 */
EsExpression *
EsExpressionCompile(MemoryContext context, const char *sql,
					const EsScope *scope, Oid type, int32 typmod)
{
	EsExpression *expression = MemoryContextAllocZero(context, sizeof(EsExpression));

	init_text(&expression->text, context, sql, scope);
	expression->type = type;
	expression->typmod = typmod;
	plan_expression(expression);
	return expression;
}

/*
 * The planned tree, for ExecInitExprWithParams; planned anew where something
 * it depends on has changed.  Good until the next call.
 */
Expr *
EsExpressionPlanned(EsExpression *expression)
{
	if (expression->cached == NULL || !expression->cached->is_valid)
	{
		EsExpressionFree(expression);
		plan_expression(expression);
	}
	return (Expr *) expression->cached->expr;
}

void
EsExpressionFree(EsExpression *expression)
{
	if (expression->cached != NULL)
		FreeCachedExpression(expression->cached);
	expression->cached = NULL;
}
