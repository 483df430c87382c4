/*
 * stat_progress.c: what long work shows of itself while it runs.
 *
 * The server has a place in shared memory for each session's progress, which
 * its own views read command by command.  Ours stands there under a command
 * number that none of those asks for, with the job's name in the parameters
 * that are left.  Nothing is written to a table, nobody waits, and the server
 * clears it when the work ends in an error or the session is gone.
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/backend_progress.h"
#include "utils/backend_status.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "stat.h"

#define COMMAND ((ProgressCommandType) 0xE5)

/* The parameters; text begins where a name is said to. */
enum
{
	P_JOB, P_STARTED, P_DONE, P_TOTAL, P_PHASE, P_NAME = P_PHASE + 3
};
#define PHASE_SIZE (3 * sizeof(int64))
#define NAME_SIZE ((PGSTAT_NUM_PROGRESS_PARAM - P_NAME) * sizeof(int64))

static const char *const job_names[] = {"run", "check", "archive"};

PG_FUNCTION_INFO_V1(es_running_jobs);

/* Set text parameters; what does not fit is cut off. */
static void
set_text(int first, const char *value, size_t size)
{
	union
	{
		char		text[NAME_SIZE];
		int64		params[NAME_SIZE / sizeof(int64)];
	}			buffer;
	int			indexes[NAME_SIZE / sizeof(int64)];
	int			n = size / sizeof(int64);

	memset(&buffer, 0, sizeof(buffer));
	memcpy(buffer.text, value, pg_mbcliplen(value, strlen(value), size - 1));
	for (int i = 0; i < n; i++)
		indexes[i] = first + i;
	pgstat_progress_update_multi_param(n, indexes, buffer.params);
}

/* Begin to show work of this session. */
void
EsProgressBegin(EsJob job, const char *name)
{
	pgstat_progress_start_command(COMMAND, EsStoreGet()->event);
	pgstat_progress_update_param(P_JOB, job);
	set_text(P_NAME, name, NAME_SIZE);
}

/* The next phase, and how much there is to do in it. */
void
EsProgressPhase(const char *phase, int64 total)
{
	set_text(P_PHASE, phase, PHASE_SIZE);
	pgstat_progress_update_param(P_DONE, 0);
	pgstat_progress_update_param(P_TOTAL, total);
	pgstat_progress_update_param(P_STARTED, GetCurrentTimestamp());
}

void
EsProgressUpdate(int64 done)
{
	pgstat_progress_update_param(P_DONE, done);
}

void
EsProgressEnd(void)
{
	pgstat_progress_end_command();
}

static void
put_job(ReturnSetInfo *result, const PgBackendStatus *status)
{
	const int64 *params = status->st_progress_param;
	const char *name = (const char *) &params[P_NAME];
	const char *job = job_names[Min((uint64) params[P_JOB], lengthof(job_names) - 1)];
	Datum		values[6];
	bool		nulls[6] = {false};

	values[0] = CStringGetTextDatum(name[0] == '\0' ? job : psprintf("%s %s", job, name));
	values[1] = CStringGetTextDatum((const char *) &params[P_PHASE]);
	values[2] = Int64GetDatum(params[P_DONE]);
	values[3] = Int64GetDatum(params[P_TOTAL]);
	values[4] = TimestampTzGetDatum(params[P_STARTED]);
	values[5] = Int32GetDatum(status->st_procpid);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

/*
 * es_running_jobs() → SETOF (job text, phase text, done bigint, total bigint,
 *		started_at timestamptz, pid integer): of this database
 */
Datum
es_running_jobs(PG_FUNCTION_ARGS)
{
	int			n = pgstat_fetch_stat_numbackends();

	InitMaterializedSRF(fcinfo, 0);
	for (int i = 1; i <= n; i++)
	{
		const PgBackendStatus *status = EsBackendStatus(i);

		if (status != NULL && status->st_progress_command == COMMAND &&
			status->st_databaseid == MyDatabaseId)
			put_job((ReturnSetInfo *) fcinfo->resultinfo, status);
	}
	return (Datum) 0;
}
