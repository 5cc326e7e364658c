-- Whose nodes are whose and what their owners get; capacity bought ahead; prices of the meters
-- beyond run time; what a site's power costs and emits. Source: docs/suppliers.md, docs/prices.md.
SELECT set_config('gridlease.tenant', '*', true);

DO $$
BEGIN
    EXECUTE format('ALTER TABLE journal DROP CONSTRAINT %I', (SELECT conname FROM pg_constraint
        WHERE conrelid = 'journal'::regclass AND contype = 'c'
            AND pg_get_constraintdef(oid) LIKE '%reclaim_credit%'));
END $$;
ALTER TABLE journal ADD CONSTRAINT journal_kind CHECK (kind IN ('credit', 'charge', 'reclaim_credit',
        'sla_credit', 'promo_credit', 'credit_note', 'invoice', 'payout', 'holdback', 'fx',
        'correction', 'meter_charge', 'commitment_fee', 'commitment_cover', 'collect'));

-- Partners whose nodes are rented out here, and the terms of each, version by version.
CREATE TABLE supplier (
    id text PRIMARY KEY CHECK (id ~ '^suppliers/[a-z]([a-z0-9-]{0,38}[a-z0-9])?$'),
    display_name text NOT NULL,
    payable int8 NOT NULL REFERENCES account (id),
    holdback int8 NOT NULL REFERENCES account (id),
    recorded_ms int8 NOT NULL
);
CREATE TABLE supplier_contract (
    id int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    supplier text NOT NULL REFERENCES supplier (id),
    version int NOT NULL CHECK (version >= 1),
    share_permyriad int NOT NULL CHECK (share_permyriad BETWEEN 0 AND 10000),
    holdback_permyriad int NOT NULL CHECK (holdback_permyriad BETWEEN 0 AND 10000),
    holdback_days int NOT NULL CHECK (holdback_days BETWEEN 0 AND 3650),
    payable int8 NOT NULL REFERENCES account (id),  -- copies of the supplier's
    holdback int8 NOT NULL REFERENCES account (id),
    recorded_ms int8 NOT NULL,
    request_id text NOT NULL UNIQUE,
    UNIQUE (supplier, version)
);
CREATE TABLE node_owner (
    id int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    node text NOT NULL CHECK (node <> ''),
    supplier text REFERENCES supplier (id),  -- NULL = the platform itself, from here on
    recorded_ms int8 NOT NULL,
    request_id text NOT NULL UNIQUE
);
CREATE INDEX node_owner_now ON node_owner (node, id DESC);

-- A lease's terms are those of the moment in which it was authorised; 0 = the platform's own node.
ALTER TABLE lease ADD COLUMN contract int8 NOT NULL DEFAULT 0,
    ADD COLUMN power int8 NOT NULL DEFAULT 0;
ALTER TABLE meter ADD COLUMN contract int8 NOT NULL DEFAULT 0;
CREATE FUNCTION contract_of(wanted text) RETURNS int8 LANGUAGE sql STABLE AS $$
    SELECT coalesce((SELECT c.id FROM supplier_contract AS c
        WHERE c.supplier = (SELECT o.supplier FROM node_owner AS o
            WHERE o.node = wanted ORDER BY o.id DESC LIMIT 1)
        ORDER BY c.version DESC LIMIT 1), 0)
$$;
CREATE FUNCTION lease_keeps_terms() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'lease % keeps its terms', OLD.id USING ERRCODE = 'check_violation';
END $$;
CREATE TRIGGER lease_keeps_terms BEFORE UPDATE ON lease
    FOR EACH ROW WHEN (OLD.contract <> NEW.contract)
    EXECUTE FUNCTION lease_keeps_terms();

-- floor(amount x share / 10,000), exact: domain/supplier.py.
CREATE FUNCTION share_of(amount int8, permyriad int) RETURNS int8 LANGUAGE sql IMMUTABLE AS $$
    SELECT amount / 10000 * permyriad + amount % 10000 * permyriad / 10000
$$;

-- Folds and charges as before (0003), and gives each node's owner its part in the same journal.
CREATE OR REPLACE FUNCTION tick(ids int8[], runs int8[], egresses int8[], storages int8[],
    energies int8[], provisions int8[], OUT moved int8, OUT refused int8[])
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT
    -- Rows are found, and locked, in the order of ids: by the index, one after another.
    SET enable_hashjoin = off SET enable_mergejoin = off SET enable_seqscan = off
    SET enable_bitmapscan = off SET plan_cache_mode = force_custom_plan AS $$
DECLARE
    now_ms int8 := floor(extract(epoch FROM clock_timestamp()) * 1000);
    latest_ns int8 := (now_ms + 2000) * 1000000;
    who int8[];
    charges int8[];
    payees int8[];
    shares int8[];
    owners int8[];
    parts int8[];
BEGIN
    WITH folded AS (
        UPDATE meter AS m SET run = greatest(m.run, t.run), egress = greatest(m.egress, t.egress),
            storage = greatest(m.storage, t.storage), energy = greatest(m.energy, t.energy),
            provision = greatest(m.provision, t.provision), before_nano = m.rated_nano,
            rated_nano = cost_nano(m.rate_nano_per_hour, greatest(m.run, t.run))
        FROM unnest(ids, runs, egresses, storages, energies, provisions)
            AS t (id, run, egress, storage, energy, provision)
        WHERE m.id = t.id AND m.quick_until_ms > now_ms AND t.run <= m.cap
            AND t.run <= latest_ns - m.starts_ms * 1000000
        RETURNING m.account, m.contract, m.before_nano, m.rated_nano
    ), by_account AS (
        SELECT account, sum(rated_nano - before_nano)::int8 AS charge, count(*) AS number
        FROM folded GROUP BY account
    ), by_owner AS (
        SELECT c.payable, c.holdback, sum(share_of(f.rated_nano, c.share_permyriad)
                - share_of(f.before_nano, c.share_permyriad))::int8 AS part,
            sum(share_of(share_of(f.rated_nano, c.share_permyriad), c.holdback_permyriad)
                - share_of(share_of(f.before_nano, c.share_permyriad), c.holdback_permyriad)
                )::int8 AS held
        FROM folded AS f JOIN supplier_contract AS c ON c.id = f.contract
        WHERE f.contract <> 0 GROUP BY c.payable, c.holdback
    )
    SELECT sum(number), array_agg(account) FILTER (WHERE charge <> 0),
        array_agg(-charge) FILTER (WHERE charge <> 0),
        (SELECT array_agg(payable) || array_agg(holdback) FROM by_owner),
        (SELECT array_agg(part - held) || array_agg(held) FROM by_owner)
    INTO moved, who, charges, owners, parts FROM by_account;
    moved := coalesce(moved, 0);
    IF who IS NOT NULL THEN
        SELECT array_agg(id), array_agg(share) INTO payees, shares FROM (
            SELECT revenue.id, -sum(charge)::int8 AS share
            FROM unnest(who || owners, charges || parts) AS t (account, charge)
            JOIN account AS a ON a.id = t.account
            JOIN account AS revenue ON revenue.kind = 'revenue' AND revenue.currency = a.currency
            GROUP BY revenue.id
            UNION ALL SELECT account, part FROM unnest(owners, parts) AS t (account, part)) AS paid
        WHERE share <> 0;
        PERFORM post('charge', NULL, 'tick', now_ms, who || payees, charges || shares,
            charges || array_fill(0::int8, ARRAY[array_length(payees, 1)]));
    END IF;
    IF moved < array_length(ids, 1) THEN
        SELECT array_agg(t.id) INTO refused FROM unnest(ids, runs) AS t (id, run)
        LEFT JOIN meter AS m ON m.id = t.id
        WHERE m.id IS NULL OR m.quick_until_ms <= now_ms OR t.run > m.cap
            OR t.run > latest_ns - m.starts_ms * 1000000;
    END IF;
END $$;

-- What of the parts kept back was released: each line once.
CREATE TABLE holdback_release (
    lease text NOT NULL,
    segment int NOT NULL,
    meter text NOT NULL,
    class text NOT NULL,
    line_ms int8 NOT NULL,
    supplier text NOT NULL REFERENCES supplier (id),
    amount_nano int8 NOT NULL CHECK (amount_nano > 0),
    journal int8 NOT NULL,
    recorded_ms int8 NOT NULL,
    PRIMARY KEY (lease, segment, meter, class, line_ms)
);
CREATE INDEX lease_of_partner ON lease (contract) WHERE contract <> 0;

-- Capacity bought ahead: a pot that is filled anew each hour (domain/commitment.py).
CREATE TABLE commitment (
    id text PRIMARY KEY CHECK (id LIKE 'commitments/_%'),
    tenant text NOT NULL,
    project text NOT NULL,
    chip text NOT NULL CHECK (chip <> ''),
    site text NOT NULL DEFAULT '',
    quantity_milli int8 NOT NULL CHECK (quantity_milli > 0),
    starts_ms int8 NOT NULL CHECK (starts_ms % 3600000 = 0),
    ends_ms int8 NOT NULL CHECK (ends_ms % 3600000 = 0),
    rate_nano_per_hour int8 NOT NULL CHECK (rate_nano_per_hour >= 0),
    price_version int8 NOT NULL,
    recorded_ms int8 NOT NULL,
    request_id text NOT NULL,
    UNIQUE (tenant, request_id),
    CHECK (starts_ms < ends_ms)
);
CREATE TABLE commitment_hour (
    commitment text NOT NULL REFERENCES commitment (id),
    hour_ms int8 NOT NULL,
    tenant text NOT NULL,
    size_milli_ns int8 NOT NULL,
    used_milli_ns int8 NOT NULL CHECK (used_milli_ns BETWEEN 0 AND size_milli_ns),
    fee_nano int8 NOT NULL,
    cover_nano int8 NOT NULL,  -- what its usage had been charged, and got back
    recorded_ms int8 NOT NULL,
    PRIMARY KEY (commitment, hour_ms)
);
CREATE TABLE commitment_draw (
    commitment text NOT NULL,
    hour_ms int8 NOT NULL,
    tenant text NOT NULL,
    lease text NOT NULL,
    segment int NOT NULL,
    milli_ns int8 NOT NULL CHECK (milli_ns > 0),
    cover_nano int8 NOT NULL CHECK (cover_nano >= 0),
    PRIMARY KEY (commitment, hour_ms, lease, segment),
    FOREIGN KEY (commitment, hour_ms) REFERENCES commitment_hour (commitment, hour_ms)
);
CREATE INDEX commitment_draw_of_lease ON commitment_draw (lease);

-- Prices of meters beyond run time. In force at t: of those with effective_ms <= t the latest, by
-- (effective_ms, version), as in price; so two never overlap.
CREATE TABLE tariff (
    version int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    meter text NOT NULL CHECK (meter IN ('egress', 'storage', 'energy', 'provision')),
    site text NOT NULL DEFAULT '',  -- '' = wherever no site has its own
    above int8[] NOT NULL,
    price_nano int8[] NOT NULL,
    per int8 NOT NULL CHECK (per > 0),
    minimum_nano int8 NOT NULL DEFAULT 0 CHECK (minimum_nano >= 0),
    pass_through boolean NOT NULL DEFAULT false,  -- energy at the site's own price by the hour
    currency text NOT NULL DEFAULT 'USD' REFERENCES currency (code),
    effective_ms int8 NOT NULL,
    recorded_ms int8 NOT NULL,
    request_id text NOT NULL UNIQUE,
    CHECK (effective_ms >= recorded_ms),
    CHECK (cardinality(above) = cardinality(price_nano) AND above[1] = 0),
    CHECK (meter <> 'provision' OR price_nano = '{0}'),
    CHECK (NOT pass_through OR meter = 'energy')
);
CREATE INDEX tariff_in_force ON tariff (meter, site, effective_ms DESC, version DESC);
-- A tenant's totals of a month, that tiers are counted by.
CREATE TABLE meter_total (
    tenant text NOT NULL,
    meter text NOT NULL,
    tariff int8 NOT NULL REFERENCES tariff (version),
    month int NOT NULL,  -- year x 12 + month - 1, UTC
    quantity int8 NOT NULL CHECK (quantity >= 0),
    PRIMARY KEY (tenant, meter, tariff, month)
);

-- A site's power as it stood when leases of it were authorised, each state once.
CREATE TABLE site_power (
    id int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    site text NOT NULL,
    pue_milli int NOT NULL CHECK (pue_milli BETWEEN 1000 AND 5000),
    carbon_mg_per_kwh int8[] NOT NULL CHECK (cardinality(carbon_mg_per_kwh) IN (0, 1, 24)),
    price_nano_per_kwh int8[] NOT NULL CHECK (cardinality(price_nano_per_kwh) IN (0, 1, 24)),
    UNIQUE (site, pue_milli, carbon_mg_per_kwh, price_nano_per_kwh)
);
-- What making a device emitted, by whose word. The latest holds.
CREATE TABLE embodied (
    version int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    chip text NOT NULL CHECK (chip <> ''),
    carbon_g int8 NOT NULL CHECK (carbon_g >= 0),
    life_hours int8 NOT NULL CHECK (life_hours > 0),
    uncertainty_permille int NOT NULL CHECK (uncertainty_permille BETWEEN 0 AND 1000),
    source text NOT NULL CHECK (source <> ''),
    recorded_ms int8 NOT NULL,
    request_id text NOT NULL UNIQUE
);

-- Insert only, and whose rows they are.
DO $$
DECLARE
    name text;
    service text;
BEGIN
    FOREACH name IN ARRAY ARRAY['supplier', 'supplier_contract', 'node_owner', 'holdback_release',
        'commitment', 'commitment_hour', 'commitment_draw', 'tariff', 'site_power', 'embodied']
    LOOP
        EXECUTE format('CREATE TRIGGER %1$s_insert_only BEFORE UPDATE OR DELETE OR TRUNCATE'
            ' ON %1$I FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()', name);
        FOR service IN
            SELECT DISTINCT acl.grantee::regrole FROM pg_class, aclexplode(relacl) AS acl
            WHERE oid = name::regclass AND acl.grantee <> relowner AND acl.grantee <> 0
        LOOP
            EXECUTE format('REVOKE UPDATE, DELETE, TRUNCATE ON %I FROM %s', name, service);
        END LOOP;
    END LOOP;
    FOREACH name IN ARRAY ARRAY['commitment', 'commitment_hour', 'commitment_draw', 'meter_total']
    LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', name);
        EXECUTE format('CREATE POLICY whose ON %I USING ((SELECT sees_all()) OR tenant ='
            ' (SELECT nullif(current_setting(''gridlease.tenant'', true), '''')))', name);
    END LOOP;
    FOREACH name IN ARRAY ARRAY['supplier', 'supplier_contract', 'node_owner', 'holdback_release']
    LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', name);
        EXECUTE format('CREATE POLICY whose ON %I USING ((SELECT sees_all()))', name);
    END LOOP;
    FOREACH name IN ARRAY ARRAY['tariff', 'site_power', 'embodied'] LOOP  -- everybody's
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', name);
        EXECUTE format('CREATE POLICY whose ON %I USING (true)', name);
    END LOOP;
END $$;
