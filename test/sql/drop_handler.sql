-- drop_handler: handlers defined anew, and the read model computed by the new ones
CREATE EXTENSION eventstore;
CREATE TABLE balance (id text PRIMARY KEY, amount numeric NOT NULL);
BEGIN;
SELECT es_create_projection('balance', 'inline', '{balance}');
SELECT es_on('balance', 'Deposited', $$INSERT INTO balance AS b VALUES (event.stream_id, event.data::numeric)
	ON CONFLICT (id) DO UPDATE SET amount = b.amount + excluded.amount$$);
-- wrong: adds
SELECT es_on('balance', 'Withdrawn', $$UPDATE balance SET amount = amount + event.data::numeric WHERE id = event.stream_id$$);
SELECT es_on('balance', 'Withdrawn', $$SELECT 1$$);
SELECT es_on_batch('balance', $$SELECT count(*) FROM new_events$$);
COMMIT;
SELECT es_append('a-1', 'Deposited', '100'), es_append('a-1', 'Withdrawn', '30');
SELECT * FROM balance;

BEGIN;
SELECT es_drop_handler('balance', 'Withdrawn');
SELECT es_on('balance', 'Withdrawn', $$UPDATE balance SET amount = amount - event.data::numeric WHERE id = event.stream_id$$);
COMMIT;
-- what is appended from now on is right, what was there is not yet
SELECT es_append('a-1', 'Withdrawn', '10');
SELECT * FROM balance;
CALL es_rebuild_projection('balance');
SELECT * FROM balance;

-- those for batches; none left
SELECT es_drop_handler('balance');
SELECT ordinal, event_type FROM es_projection_handler ORDER BY 1;
SELECT es_drop_handler('balance');
SELECT es_drop_handler('balance', if_exists => true);
SELECT es_drop_handler('balance', 'Closed');
SELECT es_drop_handler('balance', 'Closed', true);
SELECT es_drop_handler('balance', 'Deposited');
SELECT es_append('a-1', 'Deposited', '1000');
SELECT * FROM balance;
BEGIN;
SELECT es_drop_handler('balance', 'Withdrawn');
ROLLBACK;
SELECT es_append('a-1', 'Withdrawn', '1');
SELECT * FROM balance;

-- wrong arguments; somebody else's
SELECT es_drop_handler(NULL);
SELECT es_drop_handler('none');
SELECT es_drop_handler('balance', NULL, NULL);
CREATE ROLE regress_es_other;
SELECT es_grant('regress_es_other', 'admin');
SET ROLE regress_es_other;
SELECT es_drop_handler('balance', 'Withdrawn');
RESET ROLE;
SELECT count(*) FROM es_projection_handler;
DROP EXTENSION eventstore;
DROP TABLE balance;
DROP OWNED BY regress_es_other;
DROP ROLE regress_es_other;
