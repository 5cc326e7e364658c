-- A tick costs what its rows cost: counters are streamed in, meet the rows in the order of ids, and
-- what is posted is planned by itself. Says the same as before (0005).

-- Folds counters by max where that needs no decision (docs/billing.md, Ticks): how many rows it
-- moved, what accounts owe for it, and what nodes' owners get. An array that ends early says nothing
-- of the rest; shapes of arrays do not matter, and an id that is NULL is none.
CREATE FUNCTION fold(ids int8[], runs int8[], egresses int8[], storages int8[], energies int8[],
    provisions int8[], now_ms int8, latest_ns int8, OUT moved int8, OUT who int8[],
    OUT charges int8[], OUT owners int8[], OUT parts int8[], OUT asked int8)
    LANGUAGE plpgsql SET search_path FROM CURRENT
    -- Rows are found, and locked, in the order of ids, by the index: one by one where they are few
    -- among many, else walking along it.
    SET enable_hashjoin = off SET enable_seqscan = off SET enable_bitmapscan = off
    SET plan_cache_mode = force_custom_plan SET jit = off AS $$
DECLARE
    first_id int8;
    last_id int8;
BEGIN
    SELECT min(t.id), max(t.id), count(t.id) INTO first_id, last_id, asked
    FROM (SELECT unnest(ids) AS id) AS t;
    WITH folded AS (
        UPDATE meter AS m SET run = greatest(m.run, t.run), egress = greatest(m.egress, t.egress),
            storage = greatest(m.storage, t.storage), energy = greatest(m.energy, t.energy),
            provision = greatest(m.provision, t.provision), before_nano = m.rated_nano,
            rated_nano = cost_nano(m.rate_nano_per_hour, greatest(m.run, t.run))
        FROM (SELECT unnest(ids) AS id, unnest(runs) AS run, unnest(egresses) AS egress,
                unnest(storages) AS storage, unnest(energies) AS energy,
                unnest(provisions) AS provision) AS t
        WHERE m.id = t.id AND m.id BETWEEN first_id AND last_id
            AND m.quick_until_ms > now_ms AND t.run <= m.cap
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
    SELECT coalesce(sum(number), 0), array_agg(account) FILTER (WHERE charge <> 0),
        array_agg(-charge) FILTER (WHERE charge <> 0),
        (SELECT array_agg(payable) || array_agg(holdback) FROM by_owner),
        (SELECT array_agg(part - held) || array_agg(held) FROM by_owner)
    INTO moved, who, charges, owners, parts FROM by_account;
END $$;
REVOKE EXECUTE ON FUNCTION fold FROM PUBLIC;

-- Folds and charges, and gives each node's owner its part in the same journal. What it may not take,
-- it names.
CREATE OR REPLACE FUNCTION tick(ids int8[], runs int8[], egresses int8[], storages int8[],
    energies int8[], provisions int8[], OUT moved int8, OUT refused int8[])
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    now_ms int8 := floor(extract(epoch FROM clock_timestamp()) * 1000);
    latest_ns int8 := (now_ms + 2000) * 1000000;
    done record;
    payees int8[];
    shares int8[];
BEGIN
    SELECT * INTO done FROM fold(ids, runs, egresses, storages, energies, provisions, now_ms,
        latest_ns);
    moved := done.moved;
    IF done.who IS NOT NULL THEN
        SELECT array_agg(id), array_agg(share) INTO payees, shares FROM (
            SELECT revenue.id, sums.share FROM (
                SELECT a.currency, -sum(t.charge)::int8 AS share
                FROM unnest(done.who || done.owners, done.charges || done.parts)
                    AS t (account, charge)
                JOIN account AS a ON a.id = t.account GROUP BY a.currency) AS sums
            JOIN account AS revenue
                ON revenue.kind = 'revenue' AND revenue.currency = sums.currency
            UNION ALL
            SELECT account, part FROM unnest(done.owners, done.parts) AS t (account, part)
        ) AS paid WHERE share <> 0;
        PERFORM post('charge', NULL, 'tick', now_ms, done.who || payees, done.charges || shares,
            done.charges || array_fill(0::int8, ARRAY[array_length(payees, 1)]));
    END IF;
    IF moved < done.asked THEN
        SELECT array_agg(t.id) INTO refused FROM unnest(ids, runs) AS t (id, run)
        LEFT JOIN meter AS m ON m.id = t.id
        WHERE t.id IS NOT NULL AND (m.id IS NULL OR m.quick_until_ms <= now_ms OR t.run > m.cap
            OR t.run > latest_ns - m.starts_ms * 1000000);
    END IF;
END $$;
