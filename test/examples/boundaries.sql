-- Decisions that concern several streams: the scenarios of the public specification of dynamic consistency boundaries
-- (course subscriptions, unique username, invoice number, opt-in token, record duplication), each given as
-- "given these events, when this command, then this event or this refusal".
--
-- Every decision is the same three steps: read the boundary, decide, append if the boundary is still the same.
\set QUIET on
\set ON_ERROR_STOP on
SET client_min_messages = warning;
CREATE EXTENSION eventstore;

-- What an event is tagged with.
CREATE FUNCTION tags_of(type text, data jsonb) RETURNS jsonb LANGUAGE sql AS $$
	SELECT coalesce(jsonb_agg(tag), '[]') FROM (VALUES
		('course',      data ->> 'courseId'),
		('student',     data ->> 'studentId'),
		('username',    data ->> 'username'),
		('username',    data ->> 'oldUsername'),
		('username',    data ->> 'newUsername'),
		('invoice',     data ->> 'invoiceNumber'),
		('email',       data ->> 'emailAddress'),
		('otp',         data ->> 'otp'),
		('order',       data ->> 'orderId'),
		('idempotency', data ->> 'idempotencyToken')) AS v(key, value),
		LATERAL (SELECT key || ':' || value) AS t(tag) WHERE tag IS NOT NULL
$$;

CREATE FUNCTION event(type text, data jsonb, metadata jsonb = NULL) RETURNS jsonb LANGUAGE sql AS $$
	SELECT jsonb_build_array(jsonb_build_object('type', type, 'data', data, 'metadata', metadata, 'tags', tags_of(type, data)))
$$;

CREATE FUNCTION item(types text[], VARIADIC tags text[] = '{}') RETURNS jsonb LANGUAGE sql AS $$
	SELECT jsonb_build_object('types', types, 'tags', tags)
$$;

-- What a command has to know.
CREATE FUNCTION boundary_of(command text, c jsonb) RETURNS jsonb LANGUAGE sql AS $$
	SELECT jsonb_build_object('items', CASE
		WHEN command IN ('defineCourse', 'changeCourseCapacity') THEN jsonb_build_array(
			item('{CourseDefined,CourseCapacityChanged}', 'course:' || (c ->> 'courseId')))
		WHEN command = 'subscribeStudentToCourse' THEN jsonb_build_array(
			item('{CourseDefined,CourseCapacityChanged,StudentSubscribedToCourse}', 'course:' || (c ->> 'courseId')),
			item('{StudentSubscribedToCourse}', 'student:' || (c ->> 'studentId')))
		WHEN command = 'registerAccount' THEN jsonb_build_array(
			item('{AccountRegistered,AccountClosed,UsernameChanged}', 'username:' || (c ->> 'username')))
		WHEN command = 'createInvoice' THEN jsonb_build_array(item('{InvoiceCreated}'))
		WHEN command = 'confirmSignUp' THEN jsonb_build_array(
			item('{SignUpInitiated,SignUpConfirmed}', 'email:' || (c ->> 'emailAddress'), 'otp:' || (c ->> 'otp')))
		WHEN command = 'placeOrder' THEN jsonb_build_array(
			item('{OrderPlaced}', 'idempotency:' || (c ->> 'idempotencyToken')))
	END)
$$;

-- Is the user name taken?  A released one stays so for three days where that is wanted.
CREATE FUNCTION is_claimed(name text, known es_event[], retention int) RETURNS boolean LANGUAGE sql AS $$
	SELECT coalesce((SELECT
		event_type = 'AccountRegistered' OR
		event_type = 'UsernameChanged' AND data ->> 'newUsername' = name OR
		coalesce((metadata ->> 'daysAgo')::int, 0) <= retention
		FROM unnest(known) ORDER BY position DESC LIMIT 1), false)
$$;

CREATE FUNCTION decide(command text, c jsonb, known es_event[]) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	capacity int := (SELECT coalesce(data ->> 'newCapacity', data ->> 'capacity') FROM unnest(known)
		WHERE event_type IN ('CourseDefined', 'CourseCapacityChanged') ORDER BY position DESC LIMIT 1);
	sign_up record;
BEGIN
	CASE command
	WHEN 'defineCourse' THEN
		IF capacity IS NOT NULL THEN RAISE 'Course with id "%" already exists', c ->> 'courseId'; END IF;
		RETURN event('CourseDefined', c);
	WHEN 'changeCourseCapacity' THEN
		IF capacity IS NULL THEN RAISE 'Course "%" does not exist', c ->> 'courseId'; END IF;
		IF capacity = (c ->> 'newCapacity')::int THEN RAISE 'New capacity is the same as the current capacity'; END IF;
		RETURN event('CourseCapacityChanged', c);
	WHEN 'subscribeStudentToCourse' THEN
		IF capacity IS NULL THEN RAISE 'Course "%" does not exist', c ->> 'courseId'; END IF;
		IF (SELECT count(*) FROM unnest(known) WHERE event_type = 'StudentSubscribedToCourse'
			AND data ->> 'courseId' = c ->> 'courseId') >= capacity THEN
			RAISE 'Course "%" is already fully booked', c ->> 'courseId';
		END IF;
		IF EXISTS (SELECT FROM unnest(known) WHERE data = c) THEN RAISE 'Student already subscribed to this course'; END IF;
		IF (SELECT count(*) FROM unnest(known) WHERE data ->> 'studentId' = c ->> 'studentId') >= 5 THEN
			RAISE 'Student already subscribed to 5 courses';
		END IF;
		RETURN event('StudentSubscribedToCourse', c);
	WHEN 'registerAccount' THEN
		IF is_claimed(c ->> 'username', known, coalesce((c ->> 'retention')::int, -1)) THEN
			RAISE 'Username "%" is claimed', c ->> 'username';
		END IF;
		RETURN event('AccountRegistered', c - 'retention');
	WHEN 'createInvoice' THEN
		RETURN event('InvoiceCreated', c || jsonb_build_object('invoiceNumber',
			1 + coalesce((SELECT max((data ->> 'invoiceNumber')::int) FROM unnest(known)), 0)));
	WHEN 'confirmSignUp' THEN
		SELECT data, coalesce((metadata ->> 'minutesAgo')::int, 0) AS age INTO sign_up
			FROM unnest(known) WHERE event_type = 'SignUpInitiated';
		IF sign_up IS NULL OR sign_up.age > 60 THEN RAISE 'No pending sign-up for this OTP / email address'; END IF;
		IF EXISTS (SELECT FROM unnest(known) WHERE event_type = 'SignUpConfirmed') THEN RAISE 'OTP was already used'; END IF;
		RETURN event('SignUpConfirmed', sign_up.data);
	WHEN 'placeOrder' THEN
		IF cardinality(known) > 0 THEN RAISE 'Re-submission'; END IF;
		RETURN event('OrderPlaced', c);
	END CASE;
END $$;

-- Read the boundary, decide, append.
CREATE FUNCTION handle(command text, c jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	boundary jsonb := boundary_of(command, c);
	b record;
	decided jsonb;
BEGIN
	SELECT * INTO b FROM es_read_boundary(boundary);
	decided := decide(command, c, b.events);
	PERFORM es_append_if(decided, boundary, b.after);
	RETURN decided;
END $$;

-- Given, when, then; in a store that is empty before and after.
CREATE FUNCTION scenario(given jsonb, command text, c jsonb, expected text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	g jsonb;
	answer text;
BEGIN
	FOR g IN SELECT * FROM jsonb_array_elements(given) LOOP
		PERFORM es_append_if(event(g ->> 0, g -> 1, g -> 2), NULL);
	END LOOP;
	BEGIN
		answer := handle(command, c) -> 0 ->> 'type';
		-- the same decision again, on what was true before it, is refused
		IF (SELECT appended FROM es_try_append_if(event('Late', '{}'), boundary_of(command, c), es_last_position() - 1)) THEN
			answer := answer || ', and nobody noticed';
		END IF;
	EXCEPTION WHEN raise_exception THEN
		answer := SQLERRM;
	END;
	RAISE EXCEPTION USING ERRCODE = 'ES000', MESSAGE = CASE WHEN answer = expected THEN 'ok' ELSE 'NOT OK: ' || answer END;
EXCEPTION WHEN SQLSTATE 'ES000' THEN
	RETURN SQLERRM;
END $$;

\pset format unaligned
\pset tuples_only on
SELECT s.name, scenario(s.given, s.command, s.c, s.expected), s.expected FROM (VALUES
	('define course with existing id', '[["CourseDefined", {"courseId": "c1", "capacity": 10}]]'::jsonb,
		'defineCourse', '{"courseId": "c1", "capacity": 15}'::jsonb, 'Course with id "c1" already exists'),
	('define course with new id', '[]',
		'defineCourse', '{"courseId": "c1", "capacity": 15}', 'CourseDefined'),
	('change capacity of a non-existing course', '[]',
		'changeCourseCapacity', '{"courseId": "c0", "newCapacity": 15}', 'Course "c0" does not exist'),
	('change capacity of a course to a new value', '[["CourseDefined", {"courseId": "c1", "capacity": 12}]]',
		'changeCourseCapacity', '{"courseId": "c1", "newCapacity": 15}', 'CourseCapacityChanged'),
	('subscribe to a non-existing course', '[]',
		'subscribeStudentToCourse', '{"studentId": "s1", "courseId": "c0"}', 'Course "c0" does not exist'),
	('subscribe to a fully booked course', '[["CourseDefined", {"courseId": "c1", "capacity": 3}],
		["StudentSubscribedToCourse", {"studentId": "s1", "courseId": "c1"}], ["StudentSubscribedToCourse", {"studentId": "s2", "courseId": "c1"}],
		["StudentSubscribedToCourse", {"studentId": "s3", "courseId": "c1"}]]',
		'subscribeStudentToCourse', '{"studentId": "s4", "courseId": "c1"}', 'Course "c1" is already fully booked'),
	('subscribe to a course that was made smaller', '[["CourseDefined", {"courseId": "c1", "capacity": 3}],
		["StudentSubscribedToCourse", {"studentId": "s1", "courseId": "c1"}], ["CourseCapacityChanged", {"courseId": "c1", "newCapacity": 1}]]',
		'subscribeStudentToCourse', '{"studentId": "s4", "courseId": "c1"}', 'Course "c1" is already fully booked'),
	('subscribe to the same course twice', '[["CourseDefined", {"courseId": "c1", "capacity": 10}],
		["StudentSubscribedToCourse", {"studentId": "s1", "courseId": "c1"}]]',
		'subscribeStudentToCourse', '{"studentId": "s1", "courseId": "c1"}', 'Student already subscribed to this course'),
	('subscribe to more than 5 courses', '[["CourseDefined", {"courseId": "c6", "capacity": 10}],
		["StudentSubscribedToCourse", {"studentId": "s1", "courseId": "c1"}], ["StudentSubscribedToCourse", {"studentId": "s1", "courseId": "c2"}],
		["StudentSubscribedToCourse", {"studentId": "s1", "courseId": "c3"}], ["StudentSubscribedToCourse", {"studentId": "s1", "courseId": "c4"}],
		["StudentSubscribedToCourse", {"studentId": "s1", "courseId": "c5"}]]',
		'subscribeStudentToCourse', '{"studentId": "s1", "courseId": "c6"}', 'Student already subscribed to 5 courses'),
	('subscribe to a course with capacity', '[["CourseDefined", {"courseId": "c1", "capacity": 10}]]',
		'subscribeStudentToCourse', '{"studentId": "s1", "courseId": "c1"}', 'StudentSubscribedToCourse'),
	('register a claimed username', '[["AccountRegistered", {"username": "u1"}]]',
		'registerAccount', '{"username": "u1"}', 'Username "u1" is claimed'),
	('register an unused username', '[]',
		'registerAccount', '{"username": "u1"}', 'AccountRegistered'),
	('register the username of a closed account', '[["AccountRegistered", {"username": "u1"}], ["AccountClosed", {"username": "u1"}]]',
		'registerAccount', '{"username": "u1"}', 'AccountRegistered'),
	('register a username that was changed', '[["AccountRegistered", {"username": "u1"}], ["UsernameChanged", {"oldUsername": "u1", "newUsername": "u1changed"}]]',
		'registerAccount', '{"username": "u1"}', 'AccountRegistered'),
	('register a username that another was changed to', '[["AccountRegistered", {"username": "u1"}], ["UsernameChanged", {"oldUsername": "u1", "newUsername": "u1changed"}]]',
		'registerAccount', '{"username": "u1changed"}', 'Username "u1changed" is claimed'),
	('closed account, before the retention period', '[["AccountRegistered", {"username": "u1"}, {"daysAgo": 4}], ["AccountClosed", {"username": "u1"}, {"daysAgo": 3}]]',
		'registerAccount', '{"username": "u1", "retention": 3}', 'Username "u1" is claimed'),
	('changed username, before the retention period', '[["AccountRegistered", {"username": "u1"}, {"daysAgo": 4}], ["UsernameChanged", {"oldUsername": "u1", "newUsername": "u1changed"}, {"daysAgo": 3}]]',
		'registerAccount', '{"username": "u1", "retention": 3}', 'Username "u1" is claimed'),
	('closed account, after the retention period', '[["AccountRegistered", {"username": "u1"}, {"daysAgo": 4}], ["AccountClosed", {"username": "u1"}, {"daysAgo": 4}]]',
		'registerAccount', '{"username": "u1", "retention": 3}', 'AccountRegistered'),
	('changed username, after the retention period', '[["AccountRegistered", {"username": "u1"}, {"daysAgo": 4}], ["UsernameChanged", {"oldUsername": "u1", "newUsername": "u1changed"}, {"daysAgo": 4}]]',
		'registerAccount', '{"username": "u1", "retention": 3}', 'AccountRegistered'),
	('create the first invoice', '[]',
		'createInvoice', '{"invoiceData": {"foo": "bar"}}', 'InvoiceCreated'),
	('create the second invoice', '[["InvoiceCreated", {"invoiceNumber": 1, "invoiceData": {"foo": "bar"}}]]',
		'createInvoice', '{"invoiceData": {"bar": "baz"}}', 'InvoiceCreated'),
	('confirm with an unknown token', '[]',
		'confirmSignUp', '{"emailAddress": "john.doe@example.com", "otp": "000000"}', 'No pending sign-up for this OTP / email address'),
	('confirm with the token of another address', '[["SignUpInitiated", {"emailAddress": "john.doe@example.com", "otp": "111111", "name": "John Doe"}]]',
		'confirmSignUp', '{"emailAddress": "jane.doe@example.com", "otp": "111111"}', 'No pending sign-up for this OTP / email address'),
	('confirm with a used token', '[["SignUpInitiated", {"emailAddress": "john.doe@example.com", "otp": "222222", "name": "John Doe"}],
		["SignUpConfirmed", {"emailAddress": "john.doe@example.com", "otp": "222222", "name": "John Doe"}]]',
		'confirmSignUp', '{"emailAddress": "john.doe@example.com", "otp": "222222"}', 'OTP was already used'),
	('confirm with an expired token', '[["SignUpInitiated", {"emailAddress": "john.doe@example.com", "otp": "333333", "name": "John Doe"}, {"minutesAgo": 61}]]',
		'confirmSignUp', '{"emailAddress": "john.doe@example.com", "otp": "333333"}', 'No pending sign-up for this OTP / email address'),
	('confirm with a valid token', '[["SignUpInitiated", {"emailAddress": "john.doe@example.com", "otp": "444444", "name": "John Doe"}]]',
		'confirmSignUp', '{"emailAddress": "john.doe@example.com", "otp": "444444"}', 'SignUpConfirmed'),
	('place an order with a used token', '[["OrderPlaced", {"orderId": "o12345", "idempotencyToken": "11111"}]]',
		'placeOrder', '{"orderId": "o54321", "idempotencyToken": "11111"}', 'Re-submission'),
	('place an order with a new token', '[["OrderPlaced", {"orderId": "o12345", "idempotencyToken": "11111"}]]',
		'placeOrder', '{"orderId": "o54321", "idempotencyToken": "22222"}', 'OrderPlaced')
) AS s(name, given, command, c, expected);

-- Invoice numbers have no holes: each follows the one before.
SELECT handle('createInvoice', jsonb_build_object('n', n)) -> 0 -> 'data' -> 'invoiceNumber' FROM generate_series(1, 3) n;
SELECT * FROM es_check() WHERE status <> 'ok';
