-- worker: a background process that runs the projections of this database

-- Starts a worker for this database unless one is there, and answers its
-- process id.  It lives until DROP EXTENSION, DROP DATABASE or the server's
-- end, and comes back if it dies; after a restart of the server call again.
-- With eventstore in shared_preload_libraries workers start by themselves.
-- 55000 where no worker can be started.
CREATE FUNCTION es_start_worker() RETURNS integer
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION es_start_worker() IS
	'start the background worker of this database, if there is none; answers its process id';
