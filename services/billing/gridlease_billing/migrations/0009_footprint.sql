-- What leases draw and emit where nothing meters it, and what invoices have told of that: with
-- every figure that it was computed from, so that it is never computed anew. Source:
-- docs/invoices.md, Energy and carbon.
SELECT set_config('gridlease.tenant', '*', true);

-- What one device of a chip draws, and what making it emitted, by the scheduler's catalogue. The
-- latest of a chip holds for what is told next.
CREATE TABLE chip_power (
    version int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    chip text NOT NULL CHECK (chip <> ''),
    idle_mw int8 NOT NULL CHECK (idle_mw >= 0),
    peak_mw int8 NOT NULL CHECK (peak_mw >= idle_mw),
    source text NOT NULL,
    carbon_g int8 CHECK (carbon_g >= 0),
    life_hours int8 CHECK (life_hours > 0),
    uncertainty_permille int CHECK (uncertainty_permille BETWEEN 0 AND 1000),
    embodied_source text,
    recorded_ms int8 NOT NULL,
    CONSTRAINT embodied_whole CHECK (num_nulls(carbon_g, life_hours, uncertainty_permille,
        embodied_source) IN (0, 4))
);
CREATE INDEX chip_power_of_chip ON chip_power (chip, version DESC);

-- What one invoice told of one lease beyond earlier ones: energy in millijoules, carbon in
-- milligrams; NULL = not known.
CREATE TABLE footprint (
    lease text NOT NULL REFERENCES lease (id),
    number int NOT NULL CHECK (number > 0),
    tenant text NOT NULL,
    invoice text NOT NULL,
    recorded_ms int8 NOT NULL,
    starts_ms int8 NOT NULL,
    ends_ms int8 NOT NULL CHECK (ends_ms >= starts_ms),
    basis text CHECK (basis IN ('METERED', 'ESTIMATED')),
    energy_mj int8[] NOT NULL CHECK (cardinality(energy_mj) = 3),  -- expected, least, most
    operational_mg int8[] CHECK (cardinality(operational_mg) = 3),
    embodied_mg int8 CHECK (embodied_mg >= 0),
    pue_milli int CHECK (pue_milli BETWEEN 1000 AND 5000),
    carbon_mg_per_kwh int8[] NOT NULL CHECK (cardinality(carbon_mg_per_kwh) IN (0, 1, 24)),
    source text NOT NULL,
    carbon_g int8,
    life_hours int8,
    uncertainty_permille int,
    embodied_source text,
    PRIMARY KEY (lease, number)
);

DO $$
DECLARE
    name text;
    service text;
BEGIN
    FOREACH name IN ARRAY ARRAY['chip_power', 'footprint'] LOOP
        EXECUTE format('CREATE TRIGGER %1$s_insert_only BEFORE UPDATE OR DELETE OR TRUNCATE'
            ' ON %1$I FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()', name);
        FOR service IN
            SELECT DISTINCT acl.grantee::regrole FROM pg_class, aclexplode(relacl) AS acl
            WHERE oid = 'lease'::regclass AND acl.grantee <> relowner AND acl.grantee <> 0
        LOOP
            EXECUTE format('REVOKE UPDATE, DELETE, TRUNCATE ON %I FROM %s', name, service);
        END LOOP;
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', name);
    END LOOP;
    CREATE POLICY whose ON chip_power USING (true);  -- everybody's
    CREATE POLICY whose ON footprint USING ((SELECT sees_all())
        OR tenant = (SELECT nullif(current_setting('gridlease.tenant', true), '')));
END $$;

-- What leases were given back. A tenant sees no journals; whose leases these are, the caller has
-- looked up among those that it sees.
CREATE FUNCTION credited(leases text[]) RETURNS int8 LANGUAGE sql STABLE
    SET gridlease.tenant = '*' SET search_path FROM CURRENT AS $$
    SELECT coalesce(sum(e.amount), 0)::int8 FROM journal AS j
    JOIN entry AS e ON e.journal = j.id AND e.recorded_ms = j.recorded_ms
    JOIN account AS a ON a.id = e.account AND a.kind = 'tenant_prepaid'
    WHERE j.kind IN ('reclaim_credit', 'sla_credit', 'promo_credit') AND j.cause = ANY(leases)
$$;
