-- What bills rest on: reports that were believed, apart from those that were not; run time that
-- nobody may be billed for, as money in suspense; how much of a month leases were there.
-- Source: docs/metering.md, docs/billing.md, docs/prices.md.
SELECT set_config('gridlease.tenant', '*', true);

-- Adds words to the list that a CHECK of one text column holds, whatever is in it by now.
CREATE FUNCTION allow_words(name regclass, rule text, column_name text, words text[])
    RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    known text[];
BEGIN
    SELECT array_agg(DISTINCT quoted[1]) INTO known FROM pg_constraint,
        regexp_matches(pg_get_constraintdef(oid), '[''{,]([a-z_]+)(?=[''},])', 'g') AS quoted
    WHERE conrelid = name AND conname = rule;
    EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', name, rule);
    EXECUTE format('ALTER TABLE %s ADD CONSTRAINT %I CHECK (%I = ANY (%L::text[]))', name, rule,
        column_name, (SELECT array_agg(DISTINCT word ORDER BY word) FROM unnest(known || words) AS word));
END $$;
REVOKE EXECUTE ON FUNCTION allow_words FROM PUBLIC;
SELECT allow_words('journal', 'journal_kind', 'kind',
    ARRAY['suspense', 'write_off', 'availability_credit']);
SELECT allow_words('account', 'account_kind', 'kind', ARRAY['unbilled']);
-- The other side of suspense: usage that was told and is asked of nobody.
INSERT INTO account (kind, currency) SELECT 'unbilled', code FROM currency ON CONFLICT DO NOTHING;

-- A segment's reports, as its node signed them and billing believed them. part: '' = the one that
-- counts furthest on every meter; a meter's name = the one that counts furthest on it, where no
-- report does on all; 'late/...' = told after the lease was final, by the time of its correction.
-- Counts are what was believed of it: run time no further than time had passed.
ALTER TABLE signed_report ADD COLUMN part text NOT NULL DEFAULT '',
    ADD COLUMN run int8 NOT NULL DEFAULT 0,
    ADD COLUMN egress int8 NOT NULL DEFAULT 0,
    ADD COLUMN storage int8 NOT NULL DEFAULT 0,
    ADD COLUMN energy int8 NOT NULL DEFAULT 0,
    ADD COLUMN provision int8 NOT NULL DEFAULT 0,
    DROP COLUMN total;
UPDATE signed_report SET
    run = coalesce(substring(report FROM format('\ncounter %s run (\d{1,18})\n', segment)), '0')::int8,
    egress = coalesce(substring(report FROM format('\ncounter %s egress (\d{1,18})\n', segment)), '0')::int8,
    storage = coalesce(substring(report FROM format('\ncounter %s storage (\d{1,18})\n', segment)), '0')::int8,
    energy = coalesce(substring(report FROM format('\ncounter %s energy (\d{1,18})\n', segment)), '0')::int8,
    provision = coalesce(substring(report FROM format('\ncounter %s provision (\d{1,18})\n', segment)), '0')::int8;
ALTER TABLE signed_report DROP CONSTRAINT signed_report_pkey, ADD PRIMARY KEY (lease, segment, part);

-- Of a meter that is priced by a month's total: which month, and how much of it came before.
ALTER TABLE line ADD COLUMN month int, ADD COLUMN month_before int8 CHECK (month_before >= 0);

-- What was told and not believed: an alarm's evidence, one report for each lease and kind.
CREATE TABLE doubted_report (
    lease text NOT NULL,
    kind text NOT NULL,  -- the alarm's
    tenant text NOT NULL,
    node_key text NOT NULL,
    report text NOT NULL,
    signature bytea NOT NULL,
    recorded_ms int8 NOT NULL,
    PRIMARY KEY (lease, kind)
);

-- Run time that a segment's node told beyond what may be charged. open_nano is what of it lies in
-- the account suspense now: its price less what was written off, and the sum of all of them is
-- that account's. A row is written under its lease's lock.
CREATE TABLE excess (
    lease text NOT NULL,
    segment int NOT NULL,
    tenant text NOT NULL,
    cause text NOT NULL,  -- the alarm that explains it
    told_ns int8 NOT NULL CHECK (told_ns >= 0),
    charged_ns int8 NOT NULL CHECK (charged_ns >= 0),
    amount_nano int8 NOT NULL CHECK (amount_nano >= 0),
    written_off_nano int8 NOT NULL DEFAULT 0 CHECK (written_off_nano >= 0),
    open_nano int8 NOT NULL GENERATED ALWAYS AS (greatest(0, amount_nano - written_off_nano)) STORED,
    recorded_ms int8 NOT NULL,
    PRIMARY KEY (lease, segment)
);
CREATE INDEX excess_open ON excess (lease) WHERE open_nano <> 0;

-- What of suspense nothing explains: an amount without its alarm, or an account that is not the
-- sum of its causes.
CREATE FUNCTION suspense_state(OUT suspense_nano int8, OUT unexplained int8) LANGUAGE sql STABLE AS $$
    SELECT s.nano, (SELECT count(*) FROM excess AS e WHERE e.open_nano <> 0
            AND NOT EXISTS (SELECT FROM alarm AS a WHERE a.lease = e.lease AND a.kind = e.cause))
        + (s.nano <> coalesce((SELECT sum(open_nano) FROM excess), 0))::int
    FROM (SELECT coalesce(sum(account_sum(id)), 0)::int8 AS nano FROM account
        WHERE kind = 'suspense') AS s
$$;

-- A project's month, once: how much of what was granted its leases were there for.
CREATE TABLE sla_month (
    tenant text NOT NULL,
    project text NOT NULL,
    month_ms int8 NOT NULL,
    up_milli_ms int8 NOT NULL CHECK (up_milli_ms >= 0),
    down_milli_ms int8 NOT NULL CHECK (down_milli_ms >= 0),
    credit_permille int NOT NULL CHECK (credit_permille BETWEEN 0 AND 1000),
    credit_nano int8 NOT NULL CHECK (credit_nano >= 0),
    recorded_ms int8 NOT NULL,
    PRIMARY KEY (month_ms, tenant, project)
);
CREATE INDEX lease_lost ON lease (ends_at_ms)
    WHERE cause IN ('NODE_LOST', 'GRANT_ENDED') AND charged_ns > 0;

DO $$
DECLARE
    name text;
    service text;
BEGIN
    FOREACH name IN ARRAY ARRAY['doubted_report', 'excess', 'sla_month'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', name);
        EXECUTE format('CREATE POLICY whose ON %I USING ((SELECT sees_all()) OR tenant ='
            ' (SELECT nullif(current_setting(''gridlease.tenant'', true), '''')))', name);
        FOR service IN
            SELECT DISTINCT acl.grantee::regrole FROM pg_class, aclexplode(relacl) AS acl
            WHERE oid = 'lease'::regclass AND acl.grantee <> relowner AND acl.grantee <> 0
        LOOP
            EXECUTE format('REVOKE DELETE, TRUNCATE ON %I FROM %s', name, service);
            IF name = 'sla_month' THEN
                EXECUTE format('REVOKE UPDATE ON %I FROM %s', name, service);
            END IF;
        END LOOP;
    END LOOP;
END $$;
CREATE TRIGGER sla_month_insert_only BEFORE UPDATE OR DELETE OR TRUNCATE ON sla_month
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
