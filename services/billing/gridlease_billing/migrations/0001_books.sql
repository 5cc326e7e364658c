-- Billing's books. Times are milliseconds of this database's clock (Unix epoch); money is int8
-- nano-units. Nothing in price, journal, entry, invoice and invoice_line is ever changed.

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is insert only', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$;

-- Prices: insert only, so that what was in force at any time stays known. In force at t: of those
-- with effective_ms <= t the latest, by (effective_ms, version); so two never overlap.
CREATE TABLE price (
    version bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    chip text NOT NULL CHECK (chip <> ''),
    tier text NOT NULL CHECK (tier IN ('RESERVED', 'ON_DEMAND', 'SPOT')),
    price_nano_per_hour int8 NOT NULL CHECK (price_nano_per_hour BETWEEN 0 AND 1000000000000000),
    currency text NOT NULL DEFAULT 'USD' CHECK (currency = 'USD'),
    effective_ms int8 NOT NULL,
    recorded_ms int8 NOT NULL,
    request_id text NOT NULL UNIQUE,
    CHECK (effective_ms >= recorded_ms)  -- never in the past: what was charged stays explained
);
CREATE INDEX price_in_force ON price (chip, tier, effective_ms DESC, version DESC);

-- Double entry. amount > 0 is a credit, < 0 a debit; a tenant's prepaid credit is a liability.
CREATE TABLE account (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind text NOT NULL CHECK (kind IN ('tenant_prepaid', 'cash', 'revenue', 'rounding', 'suspense')),
    tenant text NOT NULL DEFAULT '',  -- '' = the platform's own
    currency text NOT NULL DEFAULT 'USD' CHECK (currency = 'USD'),
    UNIQUE (kind, tenant, currency),
    CHECK ((kind = 'tenant_prepaid') = (tenant <> ''))
);
INSERT INTO account (kind) VALUES ('cash'), ('revenue'), ('rounding'), ('suspense');

CREATE TABLE journal (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    idem_key text NOT NULL UNIQUE,
    kind text NOT NULL CHECK (kind IN ('credit', 'charge')),
    cause text NOT NULL,  -- credit: the request's note; charge: the lease
    recorded_ms int8 NOT NULL
);
CREATE INDEX journal_of_charge ON journal (cause) WHERE kind = 'charge';
CREATE TABLE entry (
    journal int8 NOT NULL REFERENCES journal (id),
    account int8 NOT NULL REFERENCES account (id),
    amount int8 NOT NULL CHECK (amount <> 0),
    PRIMARY KEY (journal, account)
);
CREATE INDEX entry_of_account ON entry (account);

CREATE FUNCTION sum_is_zero() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    wrong int8;
BEGIN
    SELECT journal INTO wrong FROM added GROUP BY journal HAVING sum(amount) <> 0 LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'journal % does not sum to zero', wrong USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER entry_sum_is_zero AFTER INSERT ON entry
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION sum_is_zero();

-- What a tenant may still spend: posted = sum of its entries, held = sum of its leases' holds.
CREATE TABLE balance (
    account int8 PRIMARY KEY REFERENCES account (id),
    posted int8 NOT NULL DEFAULT 0,
    held int8 NOT NULL DEFAULT 0 CHECK (held >= 0),
    CONSTRAINT no_overspend CHECK (posted - held >= 0)
) WITH (fillfactor = 50);

CREATE TABLE invoice_counter (
    year int PRIMARY KEY,
    last int8 NOT NULL
);
CREATE TABLE invoice (
    id text PRIMARY KEY,
    number text NOT NULL UNIQUE,
    tenant text NOT NULL,
    project text NOT NULL,
    job text NOT NULL DEFAULT '',  -- '' = all of the project's
    request_id text NOT NULL,
    issued_ms int8 NOT NULL,
    total_nano int8 NOT NULL CHECK (total_nano >= 0),
    payable_nano int8 NOT NULL CHECK (payable_nano >= 0),
    currency text NOT NULL DEFAULT 'USD',
    content_sha256 text NOT NULL,
    UNIQUE (tenant, request_id)
);
CREATE INDEX invoice_newest ON invoice (tenant, issued_ms DESC, number DESC);

-- A lease's grant. Moves HELD -> OPEN -> FENCED -> FINAL only.
CREATE TABLE lease (
    id text PRIMARY KEY CHECK (id <> ''),
    job text NOT NULL,
    gang text NOT NULL,
    tenant text NOT NULL,
    project text NOT NULL,
    node text NOT NULL,
    chip text NOT NULL,
    quantity_milli int8 NOT NULL CHECK (quantity_milli >= 0),
    tier text NOT NULL,
    priority int NOT NULL,
    budget_nano int8,
    max_rate_nano_per_hour int8,
    attempt int NOT NULL,
    notice_ms int8 NOT NULL CHECK (notice_ms >= 0),
    rate_nano_per_hour int8 NOT NULL CHECK (rate_nano_per_hour >= 0),
    price_version int8 NOT NULL,  -- that set the rate; 0 = written by Close, never authorised
    grant_ms int8 NOT NULL,
    state text NOT NULL CHECK (state IN ('HELD', 'OPEN', 'FENCED', 'FINAL')),
    ends_at_ms int8 NOT NULL,
    spool_id text,
    held_nano int8 NOT NULL CHECK (held_nano >= 0),
    charged_nano int8 NOT NULL CHECK (charged_nano >= 0),
    cause text,
    opened_ms int8 NOT NULL,
    suspense_ns int8 NOT NULL DEFAULT 0,  -- reported beyond what was granted
    late_ns int8 NOT NULL DEFAULT 0,  -- reported after FINAL
    charged_ns int8 NOT NULL DEFAULT 0,
    invoice text REFERENCES invoice (id),
    CHECK (state <> 'FINAL' OR held_nano = 0),
    CHECK (invoice IS NULL OR state = 'FINAL')
) WITH (fillfactor = 50);
CREATE INDEX lease_of_gang ON lease (gang) WHERE gang <> '';
CREATE INDEX lease_of_job ON lease (job);
CREATE INDEX lease_newest ON lease (tenant, opened_ms DESC, id DESC);
CREATE INDEX lease_not_final ON lease (state, ends_at_ms) WHERE state <> 'FINAL';
CREATE INDEX lease_to_bill ON lease (tenant, project)
    WHERE state = 'FINAL' AND invoice IS NULL AND charged_ns > 0;

CREATE FUNCTION lease_moves_forward() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    states constant text[] := ARRAY['HELD', 'OPEN', 'FENCED', 'FINAL'];
BEGIN
    IF array_position(states, NEW.state) < array_position(states, OLD.state)
        OR NEW.charged_nano < OLD.charged_nano
        OR (OLD.state IN ('FENCED', 'FINAL') AND NEW.ends_at_ms > OLD.ends_at_ms)
        OR (OLD.state = 'FINAL' AND NEW.charged_nano <> OLD.charged_nano)
        OR (OLD.spool_id IS NOT NULL AND NEW.spool_id IS DISTINCT FROM OLD.spool_id)
        OR (OLD.invoice IS NOT NULL AND NEW.invoice IS DISTINCT FROM OLD.invoice)
    THEN
        RAISE EXCEPTION 'lease % would move backwards', OLD.id USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER lease_moves_forward BEFORE UPDATE ON lease
    FOR EACH ROW EXECUTE FUNCTION lease_moves_forward();

-- A stretch of a lease at one rate.
CREATE TABLE segment (
    lease text NOT NULL REFERENCES lease (id),
    number int NOT NULL CHECK (number >= 1),
    rate_nano_per_hour int8 NOT NULL CHECK (rate_nano_per_hour >= 0),
    price_version int8 NOT NULL REFERENCES price (version),
    starts_ms int8 NOT NULL,
    ends_ms int8 NOT NULL CHECK (ends_ms >= starts_ms),
    frozen_ns int8,
    PRIMARY KEY (lease, number)
) WITH (fillfactor = 50);

-- High-water marks: loss, copies, disorder and delay of reports change nothing.
CREATE TABLE counter (
    lease text NOT NULL,
    segment int NOT NULL,
    meter text NOT NULL,
    cumulative int8 NOT NULL CHECK (cumulative >= 0),
    PRIMARY KEY (lease, segment, meter),
    FOREIGN KEY (lease, segment) REFERENCES segment (lease, number)
) WITH (fillfactor = 50);

-- The lines of an invoice, as issued: one for each lease, segment and meter, once for ever.
CREATE TABLE invoice_line (
    invoice text NOT NULL REFERENCES invoice (id),
    position int NOT NULL,
    lease text NOT NULL REFERENCES lease (id),
    segment int NOT NULL,
    meter text NOT NULL,
    line jsonb NOT NULL,
    PRIMARY KEY (invoice, position),
    UNIQUE (lease, segment, meter)
);

DO $$
DECLARE
    books text;
BEGIN
    FOREACH books IN ARRAY ARRAY['price', 'journal', 'entry', 'invoice', 'invoice_line'] LOOP
        EXECUTE format('CREATE TRIGGER %1$s_insert_only BEFORE UPDATE OR DELETE OR TRUNCATE ON %1$I'
            ' FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()', books);
    END LOOP;
END $$;

-- The service's role may not even try.
DO $$
DECLARE
    allowed record;
BEGIN
    FOR allowed IN
        SELECT DISTINCT relname, acl.grantee::regrole AS role
        FROM pg_class, aclexplode(relacl) AS acl
        WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r'
            AND acl.grantee <> relowner AND acl.grantee <> 0
    LOOP
        EXECUTE format('REVOKE DELETE, TRUNCATE ON %I FROM %s', allowed.relname, allowed.role);
        IF allowed.relname IN ('price', 'journal', 'entry', 'invoice', 'invoice_line', 'account') THEN
            EXECUTE format('REVOKE UPDATE ON %I FROM %s', allowed.relname, allowed.role);
        END IF;
    END LOOP;
END $$;
