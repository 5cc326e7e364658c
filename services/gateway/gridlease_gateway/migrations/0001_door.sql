-- Who may come in, what they uploaded, and what was done.
CREATE TABLE tenant (
    id          text PRIMARY KEY CHECK (id ~ '^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$'),
    create_time timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE project (
    id          text PRIMARY KEY CHECK (id ~ '^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$'),
    tenant      text NOT NULL REFERENCES tenant (id),
    create_time timestamptz NOT NULL DEFAULT now()
);

-- An API key reads gl_<id>_<secret>; of the secret only its SHA-256 is kept (256 random bits need
-- no slow hash). An operator's key belongs to no project.
CREATE TABLE api_key (
    id            text PRIMARY KEY,
    secret_sha256 bytea NOT NULL CHECK (octet_length(secret_sha256) = 32),
    role          text NOT NULL CHECK (role IN ('tenant', 'operator')),
    project       text REFERENCES project (id),
    display_name  text NOT NULL DEFAULT '',
    create_time   timestamptz NOT NULL DEFAULT now(),
    expire_time   timestamptz,
    revoke_time   timestamptz,
    CHECK ((role = 'tenant') = (project IS NOT NULL))
);
CREATE INDEX api_key_project ON api_key (project, create_time DESC);

-- A bundle's bytes lie in a folder under their digest; here is who may name them.
CREATE TABLE bundle (
    digest      text PRIMARY KEY CHECK (digest ~ '^sha256:[0-9a-f]{64}$'),
    size_bytes  bigint NOT NULL CHECK (size_bytes >= 0),
    create_time timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE bundle_owner (
    project     text NOT NULL REFERENCES project (id),
    digest      text NOT NULL REFERENCES bundle (digest),
    create_time timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (project, digest)
);

-- One row for each mutating and each denied call; never changed, never removed.
CREATE TABLE audit (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    time     timestamptz NOT NULL DEFAULT now(),
    method   text NOT NULL,
    key_id   text NOT NULL,
    role     text NOT NULL,
    tenant   text NOT NULL,
    project  text NOT NULL,
    resource text NOT NULL,
    outcome  text NOT NULL,  -- OK, or the fault's reason
    peer     text NOT NULL,
    trace_id text NOT NULL
);

CREATE FUNCTION audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'audit rows are never changed or removed';
END $$;
CREATE TRIGGER audit_append_only BEFORE UPDATE OR DELETE ON audit
    FOR EACH ROW EXECUTE FUNCTION audit_is_append_only();
CREATE TRIGGER audit_no_truncate BEFORE TRUNCATE ON audit
    FOR EACH STATEMENT EXECUTE FUNCTION audit_is_append_only();

-- One row once the first keys exist; credit_time is set when billing has taken the first credit.
CREATE TABLE first_start (
    singleton   boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    time        timestamptz NOT NULL DEFAULT now(),
    credit_time timestamptz
);
