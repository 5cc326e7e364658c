-- The scheduler's own tables. States move only along the machines drawn in ARCHITECTURE.md: the
-- triggers below refuse any other move. Lock order everywhere: leader_epoch, node (by id), job.

CREATE TABLE leader_epoch (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    epoch bigint NOT NULL,
    holder text NOT NULL,
    taken_at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO leader_epoch (epoch, holder) VALUES (0, '');

CREATE TABLE site (
    id text PRIMARY KEY,
    created_at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO site (id) VALUES ('local');

CREATE TABLE node (
    id text PRIMARY KEY,
    site text NOT NULL REFERENCES site (id),
    public_key text NOT NULL,
    state text NOT NULL DEFAULT 'JOINING' CHECK (state IN ('JOINING', 'READY', 'DISCONNECTED')),
    cordoned boolean NOT NULL DEFAULT false,
    generation bigint NOT NULL DEFAULT 0,
    spool_id text,
    boot_id text,
    -- What it has, as last reported: all but the devices, which have rows of their own.
    inventory jsonb,
    cpu_milli bigint NOT NULL DEFAULT 0 CHECK (cpu_milli >= 0),
    memory_bytes bigint NOT NULL DEFAULT 0 CHECK (memory_bytes >= 0),
    disk_bytes bigint NOT NULL DEFAULT 0 CHECK (disk_bytes >= 0),
    emulated boolean NOT NULL DEFAULT false,
    seen_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE node_token (
    hash bytea PRIMARY KEY,
    node_id text NOT NULL,
    site text NOT NULL REFERENCES site (id),
    expires_at timestamptz NOT NULL,
    used_key text,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE device (
    node_id text NOT NULL REFERENCES node (id),
    id text NOT NULL,
    chip text NOT NULL,
    vendor text NOT NULL,
    memory_bytes bigint NOT NULL,
    emulated boolean NOT NULL,
    clean boolean NOT NULL DEFAULT false,
    -- False once an inventory came without it; the row stays for the leases that held it.
    present boolean NOT NULL DEFAULT true,
    PRIMARY KEY (node_id, id)
);

CREATE TABLE job (
    name text PRIMARY KEY,
    project text NOT NULL,
    tenant text NOT NULL,
    request_id text NOT NULL,
    spec bytea NOT NULL,
    spec_hash bytea NOT NULL,
    needs jsonb NOT NULL,
    priority int NOT NULL CHECK (priority BETWEEN 0 AND 100),
    max_attempts int NOT NULL,
    notice_ms bigint NOT NULL,
    lost_after_ms bigint NOT NULL,
    traceparent text NOT NULL DEFAULT '',
    state text NOT NULL DEFAULT 'PENDING' CHECK (state IN
        ('PENDING', 'RUNNING', 'STOPPING', 'SUCCEEDED', 'FAILED', 'CANCELLED')),
    reason jsonb NOT NULL DEFAULT '{}',
    revision bigint NOT NULL DEFAULT 1,
    number bigserial NOT NULL UNIQUE,
    created_at timestamptz NOT NULL DEFAULT now(),
    placed_at timestamptz,
    ready_at timestamptz,
    ended_at timestamptz,
    UNIQUE (project, request_id)
);
CREATE INDEX job_pending ON job (priority DESC, number) WHERE state = 'PENDING';
CREATE INDEX job_page ON job (project, number DESC);

CREATE TABLE task (
    job text NOT NULL REFERENCES job (name),
    index int NOT NULL,
    attempt int NOT NULL DEFAULT 0,
    lease_id text,
    exit_code int,
    ran_ns bigint NOT NULL DEFAULT 0,
    reason jsonb NOT NULL DEFAULT '{}',
    PRIMARY KEY (job, index)
);

CREATE TABLE lease (
    id text PRIMARY KEY,
    job text NOT NULL,
    task_index int NOT NULL,
    attempt int NOT NULL,
    node_id text NOT NULL REFERENCES node (id),
    state text NOT NULL DEFAULT 'ACTIVE' CHECK (state IN ('ACTIVE', 'CLOSING', 'CLOSED')),
    cause text CHECK (cause IN ('EXITED', 'STOPPED', 'PREEMPTED', 'DRAINED', 'NODE_LOST')),
    notice_ms bigint NOT NULL DEFAULT 0,
    phase smallint NOT NULL DEFAULT 0 CHECK (phase BETWEEN 0 AND 4),
    -- exit code, reason, message, ran_ns … by the sandbox keeper's record
    exit jsonb,
    gone boolean NOT NULL DEFAULT false,
    -- The spool that first reported it: another spool can never run it.
    spool_id text,
    lost_after_ms bigint NOT NULL,
    cpu_milli bigint NOT NULL,
    memory_bytes bigint NOT NULL,
    disk_bytes bigint NOT NULL,
    device_ids text[] NOT NULL,
    chip text NOT NULL,
    quantity_milli bigint NOT NULL,
    rate_nano_per_hour bigint NOT NULL,
    epoch bigint NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    ready_at timestamptz,
    closing_at timestamptz,
    closed_at timestamptz,
    FOREIGN KEY (job, task_index) REFERENCES task (job, index),
    UNIQUE (job, task_index, attempt),
    CHECK ((state = 'ACTIVE') = (cause IS NULL))
);
-- One holder: the planner knows it too; these are the second lock.
CREATE UNIQUE INDEX lease_one_a_task ON lease (job, task_index) WHERE state <> 'CLOSED';
CREATE INDEX lease_unclosed ON lease (node_id) WHERE state <> 'CLOSED';

CREATE TABLE lease_device (
    lease_id text NOT NULL REFERENCES lease (id),
    node_id text NOT NULL,
    device_id text NOT NULL,
    closed boolean NOT NULL DEFAULT false,
    PRIMARY KEY (lease_id, device_id),
    FOREIGN KEY (node_id, device_id) REFERENCES device (node_id, id)
);
CREATE UNIQUE INDEX lease_one_a_device ON lease_device (node_id, device_id) WHERE NOT closed;

-- xact stands before sequence, so that a transaction has its id before it draws a number: a reader
-- who takes only rows of transactions older than every open one then never misses a number.
CREATE TABLE event (
    xact xid8 NOT NULL DEFAULT pg_current_xact_id(),
    sequence bigserial PRIMARY KEY,
    type text NOT NULL,
    entity text NOT NULL,
    project text NOT NULL DEFAULT '',
    reason jsonb NOT NULL DEFAULT '{}',
    facts jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX event_entity ON event (entity, sequence);
CREATE INDEX event_project ON event (project, sequence);

CREATE TABLE outbox (
    id bigserial PRIMARY KEY,
    subject text NOT NULL,
    payload bytea NOT NULL,
    headers jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now(),
    sent_at timestamptz
);
CREATE INDEX outbox_unsent ON outbox (id) WHERE sent_at IS NULL;

CREATE FUNCTION refuse_move() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% does not move from % to %', TG_TABLE_NAME, OLD.state, NEW.state
        USING ERRCODE = 'check_violation', CONSTRAINT = TG_NAME;
END $$;

CREATE FUNCTION refuse_generation() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'generation of % does not fall from % to %',
        OLD.id, OLD.generation, NEW.generation
        USING ERRCODE = 'check_violation', CONSTRAINT = TG_NAME;
END $$;

CREATE TRIGGER lease_moves BEFORE UPDATE OF state ON lease FOR EACH ROW
    WHEN (OLD.state <> NEW.state
        AND NOT (OLD.state = 'ACTIVE' AND NEW.state = 'CLOSING')
        AND NOT (OLD.state = 'CLOSING' AND NEW.state = 'CLOSED'))
    EXECUTE FUNCTION refuse_move();

CREATE TRIGGER job_moves BEFORE UPDATE OF state ON job FOR EACH ROW
    WHEN (OLD.state <> NEW.state
        AND NOT (OLD.state = 'PENDING' AND NEW.state IN ('RUNNING', 'CANCELLED', 'FAILED'))
        AND NOT (OLD.state = 'RUNNING'
            AND NEW.state IN ('PENDING', 'STOPPING', 'SUCCEEDED', 'FAILED'))
        AND NOT (OLD.state = 'STOPPING' AND NEW.state IN ('SUCCEEDED', 'FAILED', 'CANCELLED')))
    EXECUTE FUNCTION refuse_move();

CREATE TRIGGER node_generation BEFORE UPDATE OF generation ON node FOR EACH ROW
    WHEN (NEW.generation < OLD.generation)
    EXECUTE FUNCTION refuse_generation();

-- Who waits is woken at the commit: watchers of a job, watchers of events, the leader's loops.
CREATE FUNCTION tell_job() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('scheduler_job', NEW.name);
    IF NEW.state = 'PENDING' AND (TG_OP = 'INSERT' OR OLD.state <> 'PENDING') THEN
        PERFORM pg_notify('scheduler_work', '');
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION tell_work() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('scheduler_work', '');
    RETURN NULL;
END $$;

CREATE FUNCTION tell_event() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('scheduler_event', '');
    RETURN NULL;
END $$;

CREATE TRIGGER job_told AFTER INSERT OR UPDATE ON job FOR EACH ROW EXECUTE FUNCTION tell_job();
CREATE TRIGGER lease_told AFTER UPDATE ON lease FOR EACH ROW
    WHEN (OLD.state <> NEW.state OR OLD.gone <> NEW.gone) EXECUTE FUNCTION tell_work();
CREATE TRIGGER device_told AFTER UPDATE ON device FOR EACH ROW
    WHEN (NEW.clean AND NOT OLD.clean) EXECUTE FUNCTION tell_work();
CREATE TRIGGER node_told AFTER UPDATE ON node FOR EACH ROW
    WHEN (OLD.state <> NEW.state OR OLD.cordoned <> NEW.cordoned
        OR OLD.inventory IS DISTINCT FROM NEW.inventory) EXECUTE FUNCTION tell_work();
CREATE TRIGGER event_told AFTER INSERT ON event FOR EACH STATEMENT EXECUTE FUNCTION tell_event();
