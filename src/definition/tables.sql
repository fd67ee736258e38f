-- What tasks can be created: templates as they were registered, and the plans
-- that running tasks follow.  A plan never changes; replacing a template makes
-- new plans and retires the old ones, so a running task keeps its own.

CREATE SEQUENCE tasker.template_id_seq AS integer;
COMMENT ON SEQUENCE tasker.template_id_seq IS 'Ids of tasker.template.';

CREATE TABLE tasker.template (
    template_id integer PRIMARY KEY DEFAULT pg_catalog.nextval('tasker.template_id_seq'),
    namespace text NOT NULL,
    name text NOT NULL,
    version text NOT NULL,
    version_order text COLLATE "C" NOT NULL,
    description text,
    environment text,
    source text NOT NULL,
    definition jsonb NOT NULL,
    registered_by text NOT NULL DEFAULT current_user,
    registered_at timestamptz NOT NULL DEFAULT tasker.clock(),
    UNIQUE (namespace, name, version)
);
CREATE INDEX template_by_version ON tasker.template (namespace, name, version_order);
COMMENT ON TABLE tasker.template IS 'A task definition as it was registered: one row for each namespace, name and version.';
COMMENT ON COLUMN tasker.template.template_id IS 'Key.';
COMMENT ON COLUMN tasker.template.namespace IS 'namespace_name of the definition; default where it names none.';
COMMENT ON COLUMN tasker.template.name IS 'name of the definition.';
COMMENT ON COLUMN tasker.template.version IS 'version of the definition, a semantic version; 0.1.0 where it names none.';
COMMENT ON COLUMN tasker.template.version_order IS 'Text that sorts as the semantic versions do: the highest is the one a task gets that asks for none.';
COMMENT ON COLUMN tasker.template.description IS 'description of the definition.';
COMMENT ON COLUMN tasker.template.environment IS 'Environment fixed at registration; NULL where the setting tasker.environment decides when a task is created.';
COMMENT ON COLUMN tasker.template.source IS 'The text as it was registered.';
COMMENT ON COLUMN tasker.template.definition IS 'The text as jsonb, environments and all.';
COMMENT ON COLUMN tasker.template.registered_by IS 'Role that registered it.';
COMMENT ON COLUMN tasker.template.registered_at IS 'When it was registered, or last replaced.';

CREATE SEQUENCE tasker.plan_id_seq AS integer;
COMMENT ON SEQUENCE tasker.plan_id_seq IS 'Ids of tasker.plan.';

CREATE TABLE tasker.plan (
    plan_id integer PRIMARY KEY DEFAULT pg_catalog.nextval('tasker.plan_id_seq'),
    template_id integer NOT NULL,
    environment text,
    namespace text NOT NULL,
    name text NOT NULL,
    version text NOT NULL,
    step_count smallint NOT NULL,
    schema jsonb,
    timeout interval,
    on_failure text NOT NULL DEFAULT 'continue',
    concurrent boolean NOT NULL DEFAULT true,
    priority integer NOT NULL DEFAULT 0,
    definition jsonb NOT NULL,
    retired_at timestamptz
);
CREATE UNIQUE INDEX plan_current ON tasker.plan (template_id, environment) NULLS NOT DISTINCT
    WHERE retired_at IS NULL;
COMMENT ON TABLE tasker.plan IS 'A template with one of its environments merged in: what a task follows from its creation to its end. A plan is never changed, only retired.';
COMMENT ON COLUMN tasker.plan.plan_id IS 'Key.';
COMMENT ON COLUMN tasker.plan.template_id IS 'Template it was made from.';
COMMENT ON COLUMN tasker.plan.environment IS 'Block of environments that is merged in; NULL: none.';
COMMENT ON COLUMN tasker.plan.namespace IS 'Namespace of the template.';
COMMENT ON COLUMN tasker.plan.name IS 'Name of the template.';
COMMENT ON COLUMN tasker.plan.version IS 'Version of the template.';
COMMENT ON COLUMN tasker.plan.step_count IS 'Number of steps.';
COMMENT ON COLUMN tasker.plan.schema IS 'JSON Schema that a context must satisfy; NULL: any context.';
COMMENT ON COLUMN tasker.plan.timeout IS 'Time a task may take from its start; NULL: as long as it likes.';
COMMENT ON COLUMN tasker.plan.on_failure IS 'continue: independent branches finish after a step failed for good; stop: the task ends at once.';
COMMENT ON COLUMN tasker.plan.concurrent IS 'false: its steps run one at a time, in the order of their numbers where dependencies leave a choice.';
COMMENT ON COLUMN tasker.plan.priority IS 'Priority of a task that names none; higher goes first.';
COMMENT ON COLUMN tasker.plan.definition IS 'The merged definition.';
COMMENT ON COLUMN tasker.plan.retired_at IS 'When a replacement took its place; NULL while new tasks follow it.';

CREATE TABLE tasker.plan_step (
    plan_id integer NOT NULL,
    step_no smallint NOT NULL,
    name text NOT NULL,
    description text,
    handler_class text NOT NULL,
    handler_type text,
    handler_config jsonb,
    dependent_system text,
    parents smallint[] NOT NULL,
    children smallint[] NOT NULL,
    level smallint NOT NULL,
    retryable boolean NOT NULL DEFAULT true,
    retry_limit smallint NOT NULL DEFAULT 3,
    base_delay interval NOT NULL DEFAULT '1 s',
    max_delay interval NOT NULL DEFAULT '30 s',
    jitter real NOT NULL DEFAULT 0.1,
    timeout interval,
    skippable boolean NOT NULL DEFAULT false,
    PRIMARY KEY (plan_id, step_no)
);
COMMENT ON TABLE tasker.plan_step IS 'A step of a plan, with its edges compiled in both directions.';
COMMENT ON COLUMN tasker.plan_step.plan_id IS 'Plan it belongs to.';
COMMENT ON COLUMN tasker.plan_step.step_no IS 'Number within the plan, from 1, in the order of the definition; the lower 14 bits of a step_id.';
COMMENT ON COLUMN tasker.plan_step.name IS 'Name, unique within the plan.';
COMMENT ON COLUMN tasker.plan_step.description IS 'What it does.';
COMMENT ON COLUMN tasker.plan_step.handler_class IS 'Name its handler is registered under.';
COMMENT ON COLUMN tasker.plan_step.handler_type IS 'handler_config.type; api is run by tasker-agent.';
COMMENT ON COLUMN tasker.plan_step.handler_config IS 'What the handler gets as step.config.';
COMMENT ON COLUMN tasker.plan_step.dependent_system IS 'System the step works with, for people.';
COMMENT ON COLUMN tasker.plan_step.parents IS 'Numbers of the steps it depends on, rising.';
COMMENT ON COLUMN tasker.plan_step.children IS 'Numbers of the steps that depend on it, rising.';
COMMENT ON COLUMN tasker.plan_step.level IS 'Length of the longest path to it from a step without dependencies; 0 for such a step.';
COMMENT ON COLUMN tasker.plan_step.retryable IS 'default_retryable: false makes its first failure final.';
COMMENT ON COLUMN tasker.plan_step.retry_limit IS 'Attempts in all, the first one counted.';
COMMENT ON COLUMN tasker.plan_step.base_delay IS 'retry.base_delay: the delay after attempt n is base_delay * 2^n.';
COMMENT ON COLUMN tasker.plan_step.max_delay IS 'retry.max_delay: no delay is longer.';
COMMENT ON COLUMN tasker.plan_step.jitter IS 'retry.jitter: the delay is multiplied by a random factor in [1 - jitter, 1 + jitter].';
COMMENT ON COLUMN tasker.plan_step.timeout IS 'Time one attempt may take; NULL: as long as it likes.';
COMMENT ON COLUMN tasker.plan_step.skippable IS 'Whether the definition calls it skippable.';

SELECT pg_catalog.pg_extension_config_dump('tasker.template_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('tasker.template', '');
SELECT pg_catalog.pg_extension_config_dump('tasker.plan_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('tasker.plan', '');
SELECT pg_catalog.pg_extension_config_dump('tasker.plan_step', '');
