-- trial: commands that leave no trace
CREATE EXTENSION eventstore;
SELECT es_create_aggregate('account', initial_state => '{"balance": 0}');
SELECT es_evolve('account', 'MoneyDeposited', $$jsonb_build_object('balance', (state ->> 'balance')::numeric + (event.data ->> 'amount')::numeric)$$);
SELECT es_evolve('account', 'MoneyWithdrawn', $$jsonb_build_object('balance', (state ->> 'balance')::numeric - (event.data ->> 'amount')::numeric)$$);
SELECT es_evolve('account', 'Looked', $$jsonb_build_object('balance', state -> 'balance', 'event', to_jsonb(event) - 'recorded_at' - 'event_id')$$);
SELECT es_decide('account', 'Withdraw', $$SELECT 'MoneyWithdrawn', command, '{"by": "x"}'::jsonb$$,
	$$CASE WHEN (command ->> 'amount')::numeric > (state ->> 'balance')::numeric THEN 'insufficient funds' END$$);
SELECT es_decide('account', 'Nothing', $$SELECT 'MoneyWithdrawn', command WHERE false$$);
SELECT es_decide('account', 'Show', $$SELECT 'Shown', state$$);
CREATE TABLE trace (n int);
CREATE FUNCTION fail(command jsonb) RETURNS TABLE (event_type text, data jsonb) LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO trace VALUES (1);
	IF command ? 'state' THEN
		RAISE 'function says no' USING ERRCODE = command ->> 'state';
	END IF;
	RETURN QUERY SELECT 'Done', command;
END $$;
SELECT es_decide('account', 'Fail', 'SELECT * FROM fail(command)');

-- es_decide_dry
SELECT es_append('account-1', 'MoneyDeposited', '{"amount": 10}');
SELECT * FROM es_decide_dry('account-1', 'Withdraw', '{"amount": 10}');
SELECT * FROM es_decide_dry('account-1', 'Withdraw', '{"amount": 11}');
SELECT * FROM es_decide_dry('account-1', 'Nothing');
SELECT * FROM es_decide_dry('account-1', 'Fail');
SELECT * FROM es_decide_dry('account-1', 'Fail', '{"state": "P0001"}');
SELECT * FROM es_decide_dry('account-1', 'Fail', '{"state": "22012"}');
SELECT * FROM es_decide_dry('account-1', 'Nonsense');
SELECT es_stream_version('account-1'), (SELECT count(*) FROM trace) AS traces;

-- es_test
SELECT es_test('account', '[]', 'Withdraw', '{"amount": 1}', then_error => 'insufficient funds');
SELECT es_test('account', '[{"type": "MoneyDeposited", "data": {"amount": 10}}, {"type": "MoneyWithdrawn", "data": {"amount": 9}}]',
	'Withdraw', '{"amount": 1}', '[{"type": "MoneyWithdrawn", "data": {"amount": 1.0}, "metadata": {"by": "x"}}]', description => 'all of it');
SELECT es_test('account', '[{"type": "MoneyDeposited", "data": {"amount": 10}}]', 'Withdraw', '{"amount": 1}', '[{"type": "MoneyWithdrawn"}]');
SELECT es_test('account', '[]', 'Nothing', '{}', '[]');
SELECT es_test('account', '[{"type": "Unknown"}, {"type": "Looked"}]', 'Show', '{}',
	'[{"type": "Shown", "data": {"balance": 0, "event": {"data": {}, "tags": null, "version": 2, "metadata": null, "position": 2, "stream_id": "account-test", "event_type": "Looked", "type_version": 1}}}]');
SELECT es_test('account', '[]', 'Fail', '{"state": "22012"}', then_error => 'function says no');
-- those that fail
SELECT es_test('account', '[]', 'Withdraw', '{"amount": 1}', '[{"type": "MoneyWithdrawn"}]');
SELECT es_test('account', '[]', 'Withdraw', '{"amount": 1}', then_error => 'no');
SELECT es_test('account', '[]', 'Withdraw', '{"amount": 0}', then_error => 'insufficient funds');
SELECT es_test('account', '[]', 'Withdraw', '{"amount": 0}', '[]');
SELECT es_test('account', '[]', 'Nothing', '{}', '[{"type": "MoneyWithdrawn"}]');
SELECT es_test('account', '[]', 'Withdraw', '{"amount": 0}', '[{"type": "MoneyWithdrawn", "data": {"amount": 1}}]');
SELECT es_test('account', '[]', 'Fail', '{"state": "22012"}', '[]');
SELECT es_test('account', '[]', 'Nonsense', '{}', '[]');
SELECT es_test_done();
SELECT es_test('account', '[]', 'Nothing', '{}', '[]');
SELECT es_test_done();
SELECT es_test('account', '[]', 'Nothing', '{}');
SELECT es_test('account', '{}', 'Nothing', '{}', '[]');
SELECT es_test('account', '[1]', 'Nothing', '{}', '[]');
SELECT es_test('account', '[]', 'Nothing', '{}', '[{"data": 1}]');
SELECT es_test('account', NULL, 'Nothing', '{}', '[]');
SELECT count(*) FROM es_event;
SELECT count(*) FROM trace;

DROP EXTENSION eventstore;
DROP TABLE trace;
DROP FUNCTION fail;
