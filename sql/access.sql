-- Permissions, grants, tokens, and what tasker-agent is granted.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS tasker;
\set SHOW_CONTEXT never
\pset null '(null)'
CREATE ROLE regress_shop;
CREATE ROLE regress_clerk IN ROLE regress_shop;
CREATE ROLE regress_bank;
CREATE ROLE regress_nobody;
CREATE ROLE regress_agent NOINHERIT LOGIN;

-- Each permission is in a set that has it, each set is in a wider one, and has a description.
SELECT permission, sets, description
FROM tasker.permissions
WHERE NOT 'admin' = ANY (sets)
   OR ('viewer' = ANY (sets) AND NOT 'operator' = ANY (sets))
   OR permission !~ '^[a-z_]+:[a-z]+$'
   OR description !~ '\.$';

-- Names, resource:*, sets and another name of cancel; what is there already counts for nothing.
SELECT tasker.grant('regress_shop', '{task:show,task:show}', 'shop');
SELECT tasker.grant('regress_shop', '{task:destroy,workflow_step:*,task:show}', 'shop');
SELECT permission, namespace, granted_by = current_user AS by_me
FROM tasker.grants
WHERE role = 'regress_shop'
ORDER BY permission COLLATE "C";
SELECT tasker.grant('regress_bank', '{viewer}', 'bank') = (SELECT count(*) FROM tasker.permissions WHERE 'viewer' = ANY (sets)) AS viewer,
       tasker.grant('regress_bank', '{admin}', 'bank') > 0 AS admin,
       tasker.grant('regress_bank', '{*}', 'bank') AS all_again;

-- What can't be granted.
SELECT tasker.grant('regress_shup', '{task:show}');
SELECT tasker.grant(NULL, '{task:show}');
SELECT tasker.grant('regress_shop', '{task:shov}');
SELECT tasker.grant('regress_shop', '{viewer,NULL}');
SELECT tasker.grant('regress_shop', '{event:destroy}');
SELECT tasker.grant('regress_shop', '{task:show}', '');
SELECT tasker.grant('regress_shop', '{task:show}', NULL);

-- Everybody may see what counts for him, nobody but the owner may change it.
SET ROLE regress_clerk;
SELECT DISTINCT role, namespace FROM tasker.grants;
SELECT tasker.grant('regress_clerk', '{*}');
SELECT tasker.revoke('regress_bank');
SELECT tasker.grant_agent('regress_clerk');
SELECT tasker.create_token('regress_clerk');
SELECT tasker._authenticate_token('');
SELECT FROM tasker.access_grant;
SELECT FROM tasker.token;
SET ROLE regress_nobody;
SELECT DISTINCT role, namespace FROM tasker.grants;
RESET ROLE;

-- As long as access is not enforced everybody may everything.
SET ROLE regress_nobody;
SELECT tasker._require('task:create', 'shop');
SELECT count(*) = (SELECT count(*) FROM tasker.permissions) AS everything
FROM tasker.my_permissions()
WHERE namespace = '*';
RESET ROLE;

-- Then what was granted, and to members.
SELECT tasker.enforce_access();
SET ROLE regress_clerk;
SELECT tasker._caller_may(p, n) AS may, p, n
FROM (VALUES ('task:show', 'shop'), ('task:show', 'bank'), ('task:create', 'shop'),
             ('task:show', '*'), ('task:show', NULL), ('task:create', NULL)) AS q (p, n);
SELECT tasker._require('task:show', 'shop');
SELECT tasker._require('task:create', 'shop');
SELECT tasker._require('metrics:index', '*');
SELECT tasker._require('task:create', NULL);
SELECT count(*), min(namespace), max(namespace) FROM tasker.my_permissions();
SET ROLE regress_nobody;
SELECT * FROM tasker.my_permissions();
RESET ROLE;
SELECT tasker._require('task:create', 'shop');
-- In the same transaction as its change, and not after its rollback.
BEGIN;
SELECT tasker.grant('public', '{task:create}', 'shop');
SET LOCAL ROLE regress_nobody;
SELECT tasker._caller_may('task:create', 'shop') AS granted;
ROLLBACK;
BEGIN;
REVOKE regress_shop FROM regress_clerk;
SET LOCAL ROLE regress_clerk;
SELECT tasker._caller_may('task:show', 'shop') AS still_a_member;
ROLLBACK;
SET ROLE regress_nobody;
SELECT tasker._caller_may('task:create', 'shop') AS granted;
SET ROLE regress_clerk;
SELECT tasker._caller_may('task:show', 'shop') AS still_a_member;
RESET ROLE;
SELECT tasker.enforce_access(false);

-- Taken back, by name, by namespace, or all of it.
SELECT tasker.revoke('regress_shop', '{workflow_step:index,workflow_step:show}', 'shop');
SELECT tasker.revoke('regress_shop', '{workflow_step:*}', 'bank');
SELECT tasker.grant('regress_shop', '{task:show}');
SELECT tasker.revoke('regress_shop', '{task:show}', 'shop');
SELECT tasker.revoke('regress_shop');
SELECT tasker.revoke('regress_shop');
SELECT tasker.revoke('regress_shup');
SELECT tasker.revoke('regress_shop', '{task:shov}');
SELECT count(*) FROM tasker.grants WHERE role LIKE 'regress_sh%';
-- Those of a role that is gone.
SELECT tasker.grant('regress_nobody', '{task:show}');
DROP ROLE regress_nobody;
SELECT role FROM tasker.grants WHERE role = 'regress_nobody';
SELECT tasker.revoke('regress_nobody');
CREATE ROLE regress_nobody;

-- A token is shown once.
SELECT tasker.create_token('regress_shop', 'shop') AS token \gset
SELECT :'token' ~ '^tsk_[A-Za-z0-9_-]{43}$' AS well_formed;
SELECT t.hash = sha256(:'token') AS hashed, t::text LIKE '%' || :'token' || '%' AS kept
FROM tasker.token AS t;
SELECT tasker.create_token('regress_shop', 'shop');
SELECT tasker.create_token('regress_shup');
SELECT tasker.create_token('regress_shop', '');
SELECT tasker.create_token('regress_shop', NULL, '0 s');
SELECT tasker.create_token(NULL);
SELECT length(tasker.create_token('regress_bank'));
SELECT role, name ~ '^regress_bank-[0-9a-f]{12}$' AS named, created_by = current_user AS by_me, expires_at, last_used_at
FROM tasker.tokens
WHERE role = 'regress_bank';

-- The agent reads its role by it, and nothing else.
SELECT tasker.grant_agent('regress_agent');
SET client_min_messages = notice;
SELECT tasker.grant_agent('regress_agent');
SELECT tasker.grant_agent('regress_shop');
SET client_min_messages = warning;
SELECT tasker.grant_agent('regress_agnt');
SELECT f AS not_granted
FROM tasker._agent_functions() AS f
WHERE NOT has_function_privilege('regress_agent', f, 'EXECUTE')
   OR has_function_privilege('regress_nobody', f, 'EXECUTE');
-- Its heartbeats need that.
SELECT permission, namespace FROM tasker.grants WHERE role = 'regress_agent';
DROP OWNED BY regress_shop;
SET ROLE regress_agent;
SELECT tasker._authenticate_token(:'token') AS right, tasker._authenticate_token('tsk_') AS wrong,
       tasker._authenticate_token(NULL) AS none;
SELECT FROM tasker.token;
SELECT FROM tasker.tokens;
RESET ROLE;
-- When it was used, once a minute.
SELECT last_used_at AS used_at FROM tasker.tokens WHERE name = 'shop' \gset
SELECT :'used_at' <> '' AS noted, tasker._authenticate_token(:'token');
SELECT last_used_at = :'used_at' AS not_again FROM tasker.tokens WHERE name = 'shop';
SET tasker.clock_offset = '30 s';
SELECT tasker._authenticate_token(:'token');
SELECT last_used_at = :'used_at' AS not_again FROM tasker.tokens WHERE name = 'shop';
SET tasker.clock_offset = '70 s';
SELECT tasker._authenticate_token(:'token');
SELECT last_used_at > :'used_at' AS again FROM tasker.tokens WHERE name = 'shop';
RESET tasker.clock_offset;
BEGIN READ ONLY;
SET LOCAL tasker.clock_offset = '1 h';
SELECT tasker._authenticate_token(:'token');
COMMIT;
-- Until it expires, or its role is gone.
SELECT tasker.create_token('regress_nobody', 'short', '1 h') AS short \gset
SELECT tasker._authenticate_token(:'short');
SET tasker.clock_offset = '1 h';
SELECT tasker._authenticate_token(:'short');
RESET tasker.clock_offset;
DROP ROLE regress_nobody;
SELECT tasker._authenticate_token(:'short');
CREATE ROLE regress_nobody;
SELECT tasker.drop_token('short');

-- Who may make tokens makes those of his roles; everybody sees and drops his own.
GRANT EXECUTE ON FUNCTION tasker.create_token(text, text, interval) TO regress_clerk;
SET ROLE regress_clerk;
SELECT length(tasker.create_token('regress_shop', 'clerk'));
SELECT tasker.create_token('regress_bank');
SELECT name, role, created_by FROM tasker.tokens ORDER BY name;
SELECT tasker.drop_token('shop');
SET ROLE regress_bank;
SELECT tasker.drop_token('clerk');
SELECT tasker.drop_token(NULL);
SELECT tasker.drop_token(name) FROM tasker.tokens;
RESET ROLE;
SELECT tasker._authenticate_token(:'token');
SELECT tasker.drop_token('clerk');
SELECT count(*) FROM tasker.token;
REVOKE EXECUTE ON FUNCTION tasker.create_token(text, text, interval) FROM regress_clerk;

SELECT count(tasker.revoke(r)) FROM unnest('{regress_bank,regress_shop,regress_agent}'::text[]) AS r;
DROP OWNED BY regress_agent;
DROP ROLE regress_shop, regress_clerk, regress_bank, regress_nobody, regress_agent;
