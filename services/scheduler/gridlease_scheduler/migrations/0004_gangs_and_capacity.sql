-- Jobs of several tasks, preemption, elastic jobs, and what operators promise and limit.

-- tasks: how many the next attempt has. All rows of task of a job exist from the beginning, up to
-- tasks_max; those of the attempt that counts carry the same attempt as task 0.
ALTER TABLE job
    ADD COLUMN tasks int NOT NULL DEFAULT 1 CHECK (tasks BETWEEN 1 AND 1024),
    ADD COLUMN tasks_min int NOT NULL DEFAULT 1,
    ADD COLUMN tasks_max int NOT NULL DEFAULT 1,
    ADD COLUMN longest_ms bigint NOT NULL DEFAULT 0,
    ADD COLUMN expected_ms bigint NOT NULL DEFAULT 0,
    ADD COLUMN reservation text NOT NULL DEFAULT '',
    ADD COLUMN min_runtime_ms bigint NOT NULL DEFAULT 0,
    ADD COLUMN requeue boolean NOT NULL DEFAULT true,
    -- Within the window of the rate limit, and in all: these attempts are not counted against it.
    ADD COLUMN evictions int NOT NULL DEFAULT 0,
    ADD COLUMN evicted_in_all int NOT NULL DEFAULT 0,
    ADD COLUMN last_evicted_at timestamptz,
    -- What its tasks last told of their training or of their load.
    ADD COLUMN progress jsonb,
    -- Since when it waits: since it was submitted, or last came back to the queue.
    ADD COLUMN queued_at timestamptz NOT NULL DEFAULT now(),
    -- The checkpoint that the next attempt goes on from: fixed while an attempt runs.
    ADD COLUMN resume_from text NOT NULL DEFAULT '',
    ADD CHECK (tasks_min <= tasks_max AND tasks BETWEEN tasks_min AND tasks_max);

UPDATE job SET queued_at = created_at;

ALTER TABLE task
    ADD COLUMN checkpoint text NOT NULL DEFAULT '',
    ADD COLUMN checkpoint_at timestamptz;

ALTER TABLE lease
    -- Why it was told to end: code, message, evidence; the task hears it.
    ADD COLUMN stop_reason jsonb NOT NULL DEFAULT '{}',
    -- When its end was first reported.
    ADD COLUMN exited_at timestamptz,
    ADD COLUMN network_mbps bigint NOT NULL DEFAULT 0 CHECK (network_mbps >= 0),
    ADD COLUMN network_path text NOT NULL DEFAULT '',
    ADD COLUMN reservation text NOT NULL DEFAULT '';

-- Few are CLOSING, and each pass of the leader asks which.
CREATE INDEX lease_closing ON lease (job) WHERE state = 'CLOSING';

ALTER TABLE device ADD COLUMN island text NOT NULL DEFAULT '';

-- rack, rail: an operator's word, before the inventory's; empty = none. draining implies cordoned.
ALTER TABLE node
    ADD COLUMN rack text NOT NULL DEFAULT '',
    ADD COLUMN rail text NOT NULL DEFAULT '',
    ADD COLUMN draining boolean NOT NULL DEFAULT false,
    ADD CHECK (cordoned OR NOT draining);

ALTER TABLE site
    ADD COLUMN pue_milli int NOT NULL DEFAULT 1000 CHECK (pue_milli >= 0),
    ADD COLUMN cap_watts bigint NOT NULL DEFAULT 0 CHECK (cap_watts >= 0),
    ADD COLUMN rack_cap_watts jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN price_nano_per_kwh bigint[] NOT NULL DEFAULT '{}',
    ADD COLUMN carbon_mg_per_kwh bigint[] NOT NULL DEFAULT '{}';

-- project: "projects/…", or "folders/…" that projects nest in. chip '' = all accelerators together.
CREATE TABLE quota (
    project text NOT NULL,
    chip text NOT NULL DEFAULT '',
    parent text NOT NULL DEFAULT '',
    guaranteed_milli bigint NOT NULL CHECK (guaranteed_milli >= 0),
    limit_milli bigint NOT NULL CHECK (limit_milli >= 0),
    changed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (project, chip)
);

-- used: thousandths of device-milliseconds, weighted by throughput, decayed as of used_at.
CREATE TABLE share (
    tenant text PRIMARY KEY,
    weight int NOT NULL DEFAULT 1 CHECK (weight > 0),
    used bigint NOT NULL DEFAULT 0 CHECK (used >= 0),
    used_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE reservation (
    name text PRIMARY KEY,
    project text NOT NULL,
    request_id text NOT NULL,
    chip text NOT NULL,
    site text NOT NULL DEFAULT '',
    quantity_milli bigint NOT NULL CHECK (quantity_milli > 0),
    begins_at timestamptz NOT NULL,
    ends_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    cancelled_at timestamptz,
    CHECK (begins_at < ends_at),
    UNIQUE (project, request_id)
);
CREATE INDEX reservation_standing ON reservation (ends_at) WHERE cancelled_at IS NULL;

-- What operators change is planned with at once.
CREATE TRIGGER quota_told AFTER INSERT OR UPDATE OR DELETE ON quota
    FOR EACH STATEMENT EXECUTE FUNCTION tell_work();
CREATE TRIGGER share_told AFTER UPDATE OF weight ON share
    FOR EACH STATEMENT EXECUTE FUNCTION tell_work();
CREATE TRIGGER site_told AFTER UPDATE ON site
    FOR EACH STATEMENT EXECUTE FUNCTION tell_work();
CREATE TRIGGER reservation_told AFTER INSERT OR UPDATE ON reservation
    FOR EACH STATEMENT EXECUTE FUNCTION tell_work();
CREATE TRIGGER node_moved AFTER UPDATE OF rack, rail, draining ON node FOR EACH ROW
    WHEN (OLD.rack <> NEW.rack OR OLD.rail <> NEW.rail OR OLD.draining <> NEW.draining)
    EXECUTE FUNCTION tell_work();
