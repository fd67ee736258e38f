-- A function that a handler is registered with can't be taken from under it.

\set VERBOSITY default
SET client_min_messages = error;
CREATE SCHEMA depend;
CREATE SCHEMA depend_other;
CREATE FUNCTION depend.charge(step tasker.step_context) RETURNS jsonb
LANGUAGE sql AS $$ SELECT '{}'::jsonb $$;
CREATE FUNCTION depend."Pack It"(step tasker.step_context) RETURNS jsonb
LANGUAGE sql AS $$ SELECT '{}'::jsonb $$;
CREATE FUNCTION depend.charge(amount integer) RETURNS integer
LANGUAGE sql AS $$ SELECT 1 $$;
CREATE FUNCTION depend.unused(step tasker.step_context) RETURNS jsonb
LANGUAGE sql AS $$ SELECT '{}'::jsonb $$;
SELECT FROM tasker.register_handler('charge', 'depend."Pack It"'::regproc, namespace => 'depend', version => '1.0.0');
DROP FUNCTION depend.charge(integer);
SELECT FROM tasker.register_handler('charge', 'depend.charge'::regproc);
CREATE FUNCTION depend.charge(amount integer) RETURNS integer
LANGUAGE sql AS $$ SELECT 1 $$;
SELECT FROM tasker.register_task('{"name": "pay", "namespace_name": "depend", "version": "1.0.0", "step_templates": [{"name": "charge", "handler_class": "charge"}]}');
SELECT FROM tasker.register_task('{"name": "pay", "namespace_name": "depend", "version": "2.0.0", "step_templates": [{"name": "charge", "handler_class": "charge"}]}');
SELECT FROM tasker.register_task('{"name": "pay", "namespace_name": "depend_two", "step_templates": [{"name": "charge", "handler_class": "charge"}]}');

-- Refused, and each says who needs it.
DROP FUNCTION depend.charge(tasker.step_context);
DROP FUNCTION depend.charge(tasker.step_context) CASCADE;
DROP FUNCTION depend."Pack It";
DROP ROUTINE depend."Pack It";
ALTER FUNCTION depend.charge(tasker.step_context) RENAME TO charge_it;
ALTER FUNCTION depend.charge(tasker.step_context) SET SCHEMA depend_other;
ALTER SCHEMA depend RENAME TO depend_new;
DROP SCHEMA depend CASCADE;
CREATE OR REPLACE FUNCTION depend.charge(step tasker.step_context) RETURNS text
LANGUAGE sql AS $$ SELECT ''::text $$;

-- Whoever owns the function need not be able to read the engine's tables, and
-- no search_path of his gets in the way.
CREATE ROLE regress_depend;
GRANT CREATE, USAGE ON SCHEMA depend TO regress_depend;
SET ROLE regress_depend;
CREATE FUNCTION depend.own(step tasker.step_context) RETURNS jsonb
LANGUAGE sql AS $$ SELECT '{}'::jsonb $$;
SELECT FROM tasker.register_handler('depend_own', 'depend.own');
CREATE FUNCTION depend.equals(text, text) RETURNS boolean
LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'called'; END $$;
CREATE OPERATOR depend.= (LEFTARG = text, RIGHTARG = text, FUNCTION = depend.equals);
SET search_path = depend, pg_catalog;
DROP FUNCTION depend.own;
RESET search_path;
RESET ROLE;
DROP OWNED BY regress_depend;

-- What stays as it was called may change otherwise.
CREATE OR REPLACE FUNCTION depend.charge(step tasker.step_context) RETURNS jsonb
LANGUAGE plpgsql AS $$ BEGIN RETURN '{"new": true}'; END $$;
ALTER FUNCTION depend.charge(tasker.step_context) SET work_mem = '1MB';
ALTER FUNCTION depend.charge(tasker.step_context) OWNER TO regress_depend;
ALTER FUNCTION depend.charge(tasker.step_context) OWNER TO CURRENT_USER;
ALTER FUNCTION depend.charge(tasker.step_context) PARALLEL SAFE;
ALTER SCHEMA depend OWNER TO CURRENT_USER;

-- Functions that no handler is registered with.
DROP FUNCTION depend.charge(integer);
ALTER FUNCTION depend.unused RENAME TO unused_too;
DROP FUNCTION depend.unused_too;

-- A dump that is restored with --clean drops them, and brings them back.
BEGIN;
SET LOCAL check_function_bodies = off;
DROP FUNCTION depend.charge(tasker.step_context);
ROLLBACK;

-- DROP EXTENSION takes them with it.
BEGIN;
DROP EXTENSION tasker CASCADE;
SELECT to_regproc('depend.charge');
ROLLBACK;
SELECT to_regproc('depend.charge');

-- In one transaction with the removal of the handler, and with its return.
BEGIN;
SELECT FROM tasker.unregister_handler('charge');
DROP FUNCTION depend.charge(tasker.step_context);
ROLLBACK;
DROP FUNCTION depend.charge(tasker.step_context);

SELECT FROM tasker.unregister_handler('charge');
SELECT FROM tasker.unregister_handler('charge', 'depend', '1.0.0');
SELECT FROM tasker.unregister_handler('depend_own');
DROP OWNED BY regress_depend;
DROP ROLE regress_depend;
DROP SCHEMA depend CASCADE;
DROP SCHEMA depend_other;
