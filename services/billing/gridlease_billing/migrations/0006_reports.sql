-- What reports are made from beyond the books: how full chips were, budgets, and what was told of
-- them; and the mark that these books came back from a backup. Source: docs/reports.md.
SELECT set_config('gridlease.tenant', '*', true);

-- How full a chip was, window by window: from the scheduler's reports, once each.
CREATE TABLE chip_window (
    end_ms int8 NOT NULL,
    chip text NOT NULL,
    span_ms int8 NOT NULL CHECK (span_ms > 0),
    total_milli int8 NOT NULL CHECK (total_milli >= 0),
    used_milli int8 NOT NULL CHECK (used_milli BETWEEN 0 AND total_milli),
    PRIMARY KEY (end_ms, chip)
);

-- What a tenant, or one of its projects, means to spend in a month. told_*: how far was told.
CREATE TABLE spending_budget (
    tenant text NOT NULL,
    project text NOT NULL,  -- '' = all of the tenant's
    amount_nano int8 NOT NULL CHECK (amount_nano > 0),
    thresholds_permille int[] NOT NULL CHECK (cardinality(thresholds_permille) BETWEEN 1 AND 20),
    told_month_ms int8 NOT NULL DEFAULT 0,
    told_nano int8 NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant, project)
);

-- What was told, in order; a key is told of once. Writers queue, so that whoever reads after a
-- number has missed none before it.
CREATE TABLE notice (
    sequence int8 PRIMARY KEY,
    recorded_ms int8 NOT NULL,
    kind text NOT NULL,
    tenant text NOT NULL,
    project text NOT NULL,
    entity text NOT NULL,
    facts jsonb NOT NULL,
    key text NOT NULL UNIQUE
);
CREATE INDEX notice_of_tenant ON notice (tenant, sequence);
CREATE FUNCTION tell(kind text, tenant text, project text, entity text, facts jsonb, key text,
    now_ms int8) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('gridlease.billing.notice', 0));
    INSERT INTO notice AS n
    SELECT coalesce(max(m.sequence), 0) + 1, now_ms, $1, $2, $3, $4, $5, $6 FROM notice AS m
    ON CONFLICT DO NOTHING;
    RETURN FOUND;
END $$;

-- One row for each time that these books came back from a backup. Until opened_ms is set, billing
-- serves nobody: grants that were given after the backup may still run.
CREATE TABLE restored (
    id int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    restored_ms int8 NOT NULL,
    opened_ms int8
);

-- Rows that lie in no month of their own, and how many months are there from this one on.
CREATE FUNCTION months_kept(now_ms int8, OUT astray int8, OUT ahead int) LANGUAGE sql STABLE
    SECURITY DEFINER SET search_path FROM CURRENT AS $$
    SELECT (SELECT count(*) FROM journal_other) + (SELECT count(*) FROM entry_other)
            + (SELECT count(*) FROM line_other),
        (SELECT count(*)::int FROM generate_series(0, 23) AS n WHERE NOT EXISTS (
            SELECT FROM unnest(ARRAY['journal', 'entry', 'line']) AS books,
                generate_series(0, n) AS m
            WHERE to_regclass(quote_ident(books || to_char(
                date_trunc('month', to_timestamp(now_ms / 1000.0) AT TIME ZONE 'UTC')
                    + make_interval(months => m), '_YYYY_MM'))) IS NULL))
$$;

DO $$
DECLARE
    service text;
    rule text[];
BEGIN
    FOREACH rule SLICE 1 IN ARRAY ARRAY[
        ['notice', 'tenant = (SELECT nullif(current_setting(''gridlease.tenant'', true), ''''))'],
        ['spending_budget',
            'tenant = (SELECT nullif(current_setting(''gridlease.tenant'', true), ''''))'],
        ['chip_window', 'false'], ['restored', 'false']]
    LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY',
            rule[1]);
        EXECUTE format('CREATE POLICY whose ON %I USING ((SELECT sees_all()) OR %s)',
            rule[1], rule[2]);
    END LOOP;
    FOR service IN
        SELECT DISTINCT acl.grantee::regrole FROM pg_class, aclexplode(relacl) AS acl
        WHERE oid = 'lease'::regclass AND acl.grantee <> relowner AND acl.grantee <> 0
    LOOP
        EXECUTE format('REVOKE UPDATE, DELETE, TRUNCATE ON notice FROM %s', service);
        EXECUTE format('REVOKE UPDATE, TRUNCATE ON chip_window FROM %s', service);
        EXECUTE format('REVOKE DELETE, TRUNCATE ON restored FROM %s', service);
    END LOOP;
END $$;
CREATE TRIGGER notice_insert_only BEFORE UPDATE OR DELETE OR TRUNCATE ON notice
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
