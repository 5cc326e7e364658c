-- Secrets that change without a gap, events that are sent again, and what was given up.

-- Until then the secret of before signs beside the new one.
ALTER TABLE webhook ADD COLUMN old_secret bytea CHECK (octet_length(old_secret) = 32),
    ADD COLUMN old_secret_until timestamptz,
    ADD CHECK ((old_secret IS NULL) = (old_secret_until IS NULL));

-- Events to send again, each under the id that it had. They overtake nothing and nothing waits
-- for them: the cursors of the webhook stay where they are.
CREATE TABLE webhook_replay (
    webhook   text NOT NULL REFERENCES webhook (id),
    room      text NOT NULL CHECK (room IN ('scheduler', 'billing')),
    sequence  bigint NOT NULL,
    failures  int NOT NULL DEFAULT 0,
    next_time timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (webhook, room, sequence)
);
CREATE INDEX webhook_replay_due ON webhook_replay (webhook, next_time);

-- What a webhook never took; kept until it is 90 days old.
CREATE TABLE webhook_dead (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    webhook    text NOT NULL REFERENCES webhook (id),
    room       text NOT NULL CHECK (room IN ('scheduler', 'billing')),
    sequence   bigint NOT NULL,
    type       text NOT NULL,
    time       timestamptz NOT NULL DEFAULT now(),
    last_error text NOT NULL,
    tries      int NOT NULL,
    taken_time timestamptz,  -- when it was sent again after all, and taken
    UNIQUE (webhook, room, sequence)
);
CREATE INDEX webhook_dead_age ON webhook_dead (webhook, time);
