-- The extension, in the schema that the search path names.
CREATE EXTENSION eventstore;
SELECT es_grant('bench_app', 'writer'), es_grant('bench_app', 'reader');
