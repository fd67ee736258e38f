\echo Use "CREATE EXTENSION tasker" to load this file. \quit

-- Names in this script mean what they say: nobody's search_path can put an
-- operator or a function in the way while a superuser runs it.
SET LOCAL search_path TO pg_catalog, pg_temp;
