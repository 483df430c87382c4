/*
 * attempt.c: do something that may fail, and go on if it did.
 *
 * The work runs in a subtransaction, so that whatever it did, locked or left
 * open is undone with it.  Which errors are an outcome and which have to be
 * thrown on, only the caller can say: an interruption must never be swallowed.
 */
#include "postgres.h"

#include "access/xact.h"
#include "utils/resowner.h"

#include "attempt.h"

/*
 * Do the work.  It stays done if it answers true; else it is undone, and so it
 * is when it raises an error, which then is in *error, in the caller's memory
 * context (NULL: there was none).  Answers whether it stays done.
 */
bool
EsAttempt(EsAttemptWork work, void *arg, ErrorData **error)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile bool done = false;

	*error = NULL;
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		if (work(arg))
		{
			ReleaseCurrentSubTransaction();
			done = true;
		}
		else
			RollbackAndReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		*error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return done;
}
