/*
 * check_index.c: are the indexes sound inside?  Asks amcheck, where that is
 * installed.
 *
 * It is somebody else's function, so an error ends a subtransaction and not
 * es_check(); and it does not know of our deadline, so a timer cancels it, as
 * a user would.  What the timer did is told from a real cancellation by a
 * flag, and does not outlive the call.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

#include "attempt.h"
#include "check.h"
#include "query.h"
#include "stat.h"

#define NAME "index structure"

static volatile sig_atomic_t time_is_up = false;
static TimeoutId timer;
static bool timer_is_known = false;

static void
cancel_amcheck(void)
{
	time_is_up = true;
	QueryCancelPending = true;
	InterruptPending = true;
}

static void
start_timer(const EsCheck *check)
{
	if (!timer_is_known)
		timer = RegisterTimeout(USER_TIMEOUT, cancel_amcheck);
	timer_is_known = true;
	time_is_up = false;
	if (check->deadline != DT_NOEND)
		enable_timeout_at(timer, check->deadline);
}

/* Stop the timer, and take back a cancellation that it asked for too late. */
static void
stop_timer(void)
{
	disable_timeout(timer, false);
	if (time_is_up)
		QueryCancelPending = false;
}

typedef struct Question
{
	const EsCheck *check;
	const char *sql;
	EsQuery		query;
} Question;

static bool
ask(void *arg)
{
	Question   *question = arg;

	start_timer(question->check);
	EsQueryRun(question->sql, &question->query);
	stop_timer();
	return true;
}

/*
 * Run amcheck's function on an index.  Answers its complaint, or NULL.  An
 * error that is not amcheck's to raise is thrown on.
 */
static ErrorData *
ask_amcheck(const EsCheck *check, const char *sql, Oid index)
{
	Question	question = {.check = check,.sql = sql};
	ErrorData  *error;

	EsQueryAdd(&question.query, OIDOID, ObjectIdGetDatum(index), false);
	(void) EsAttempt(ask, &question, &error);
	stop_timer();
	if (error != NULL && error->sqlerrcode == ERRCODE_QUERY_CANCELED && !time_is_up)
		ReThrowError(error);
	return error;
}

/* The B-tree indexes of the store's tables, the small ones first. */
static uint64
find_indexes(Oid **indexes)
{
	uint64		n = EsQueryRun("SELECT i.indexrelid FROM pg_index i"
							   " JOIN pg_class c ON c.oid = i.indexrelid"
							   " JOIN pg_am a ON a.oid = c.relam AND a.amname = 'btree'"
							   " JOIN pg_depend d ON d.classid = 'pg_class'::regclass"
							   " AND d.objid = i.indrelid AND d.deptype = 'e'"
							   " AND d.refclassid = 'pg_extension'::regclass"
							   " JOIN pg_extension x ON x.oid = d.refobjid AND x.extname = 'eventstore'"
							   " WHERE i.indisvalid AND i.indisready"
							   " ORDER BY pg_relation_size(i.indexrelid), 1", NULL);

	*indexes = palloc(n * sizeof(Oid));
	for (uint64 i = 0; i < n; i++)
		(*indexes)[i] = (Oid) strtoul(EsQueryText(i, 1), NULL, 10);
	return n;
}

/* Check one index; false when the time is up. */
static bool
check_index(EsCheck *check, const char *sql, Oid index, bool *sound)
{
	ErrorData  *error = ask_amcheck(check, sql, index);

	if (error == NULL)
		return true;
	if (time_is_up && error->sqlerrcode == ERRCODE_QUERY_CANCELED)
	{
		check->late = true;
		return false;
	}
	*sound = false;
	if (error->sqlerrcode == ERRCODE_INSUFFICIENT_PRIVILEGE)
		EsCheckPut(check, NAME, ES_CHECK_WARNING,
				   "Grant the extension's owner EXECUTE on amcheck's functions.",
				   "\"%s\" was not checked: %s", get_rel_name(index), error->message);
	else
		EsCheckPut(check, NAME, ES_CHECK_ERROR, "REINDEX INDEX it, and look for what damaged it.",
				   "\"%s\": %s", get_rel_name(index), error->message);
	return true;
}

static void
check_structure(EsCheck *check, Oid amcheck)
{
	char	   *sql = psprintf("SELECT %s.bt_index_check($1::regclass)",
							   quote_identifier(get_namespace_name(amcheck)));
	Oid		   *indexes;
	uint64		n = find_indexes(&indexes);
	uint64		done = 0;
	bool		sound = true;

	EsProgressPhase("index structure", n);
	while (done < n && EsCheckGoOn(check) &&
		   check_index(check, sql, indexes[done], &sound))
		EsProgressUpdate(++done);
	if (done < n)
		EsCheckUnfinished(check, NAME, done, "indexes");
	else if (sound)
		EsCheckPut(check, NAME, ES_CHECK_OK, NULL, UINT64_FORMAT " indexes, by amcheck", n);
}

/* All indexes of the store from the inside. */
void
EsCheckIndexes(EsCheck *check)
{
	Oid			amcheck = EsExtensionSchema("amcheck");

	if (!OidIsValid(amcheck))
	{
		EsCheckPut(check, NAME, ES_CHECK_OK, NULL,
				   "not looked at: extension amcheck is not installed");
		return;
	}
	SPI_connect();
	check_structure(check, amcheck);
	SPI_finish();
}
