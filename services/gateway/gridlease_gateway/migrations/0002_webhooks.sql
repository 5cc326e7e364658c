-- Where a project's events are sent. A row is claimed for a while by the gateway that sends; its
-- cursors move on only after an answer, so each event is sent at least once and in order.
CREATE TABLE webhook (
    id            text PRIMARY KEY,
    project       text NOT NULL REFERENCES project (id),
    url           text NOT NULL,
    types         text[] NOT NULL DEFAULT '{}',
    secret        bytea NOT NULL CHECK (octet_length(secret) = 32),
    create_time   timestamptz NOT NULL DEFAULT now(),
    delete_time   timestamptz,
    event_after   bigint NOT NULL DEFAULT 0,  -- sequence of the scheduler's events
    notice_after  bigint NOT NULL DEFAULT 0,  -- sequence of billing's notices
    failures      int NOT NULL DEFAULT 0,  -- of the event at the head
    dead_count    bigint NOT NULL DEFAULT 0,
    last_error    text NOT NULL DEFAULT '',
    next_time     timestamptz NOT NULL DEFAULT now(),
    claimed_until timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX webhook_due ON webhook (next_time) WHERE delete_time IS NULL;
CREATE INDEX webhook_project ON webhook (project, create_time);
