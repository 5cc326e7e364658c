-- The ledger as docs/billing.md describes it: books in months, chained by hashes, written by one
-- function; what a tenant may see is a matter of the database. Later revisions that touch rows of
-- tenants begin with: SELECT set_config('gridlease.tenant', '*', true);
SELECT set_config('gridlease.tenant', '*', true);

CREATE TABLE currency (
    code text PRIMARY KEY CHECK (code ~ '^[A-Z]{3}$'),
    minor_exponent int NOT NULL CHECK (minor_exponent BETWEEN 0 AND 9)
);
INSERT INTO currency VALUES ('USD', 2), ('EUR', 2), ('GBP', 2), ('CNY', 2), ('JPY', 0);

-- Accounts: a tenant's, a supplier's, or ('' and '') the platform's.
ALTER TABLE account DROP CONSTRAINT account_kind_check, DROP CONSTRAINT account_check,
    DROP CONSTRAINT account_currency_check, DROP CONSTRAINT account_kind_tenant_currency_key;
ALTER TABLE account ADD COLUMN supplier text NOT NULL DEFAULT '',
    ADD CONSTRAINT account_kind CHECK (kind IN ('tenant_prepaid', 'receivable', 'hold', 'cash',
        'revenue', 'supplier_payable', 'supplier_holdback', 'tax_payable', 'credit_note',
        'sla_expense', 'promo_expense', 'fx', 'rounding', 'suspense')),
    ADD CONSTRAINT account_of_tenant
        CHECK ((kind IN ('tenant_prepaid', 'receivable', 'hold')) = (tenant <> '')),
    ADD CONSTRAINT account_of_supplier
        CHECK ((kind IN ('supplier_payable', 'supplier_holdback')) = (supplier <> '')),
    ADD CONSTRAINT account_currency FOREIGN KEY (currency) REFERENCES currency (code),
    ADD CONSTRAINT account_once UNIQUE (kind, tenant, supplier, currency);
INSERT INTO account (kind, currency)
SELECT kind, code FROM currency, unnest(ARRAY['cash', 'revenue', 'tax_payable', 'credit_note',
    'sla_expense', 'promo_expense', 'fx', 'rounding', 'suspense']) AS kind
ON CONFLICT DO NOTHING;

-- Only a tenant's prepaid account has a balance; all others are sums of entries.
ALTER TABLE balance ADD COLUMN credit_limit int8 NOT NULL DEFAULT 0 CHECK (credit_limit >= 0),
    DROP CONSTRAINT no_overspend,
    ADD CONSTRAINT no_overspend CHECK (posted - held >= -credit_limit);
CREATE FUNCTION balance_is_a_tenants() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM account WHERE id = NEW.account AND kind = 'tenant_prepaid') THEN
        RAISE EXCEPTION 'account % keeps no balance', NEW.account
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER balance_is_a_tenants BEFORE INSERT OR UPDATE OF account ON balance
    FOR EACH ROW EXECUTE FUNCTION balance_is_a_tenants();

-- The books. Ranges are of recorded_ms, so late data never enters a month that is over.
ALTER TABLE entry RENAME TO entry_before;
ALTER TABLE journal RENAME TO journal_before;
CREATE SEQUENCE journal_number;
SELECT setval('journal_number', coalesce((SELECT max(id) FROM journal_before), 0) + 1, false);
CREATE TABLE journal (
    id int8 NOT NULL,
    recorded_ms int8 NOT NULL,
    kind text NOT NULL CHECK (kind IN ('credit', 'charge', 'reclaim_credit', 'sla_credit',
        'promo_credit', 'credit_note', 'invoice', 'payout', 'holdback', 'fx', 'correction')),
    idem_key text,  -- a copy of journal_key's
    cause text NOT NULL,
    lane int NOT NULL,
    seq int8 NOT NULL,
    prev_hash bytea NOT NULL,
    hash bytea NOT NULL,
    CONSTRAINT journal_pk PRIMARY KEY (id, recorded_ms)
) PARTITION BY RANGE (recorded_ms);
CREATE INDEX journal_of_lane ON journal (lane, seq);
CREATE INDEX journal_of_cause ON journal (cause);
CREATE TABLE entry (
    journal int8 NOT NULL,
    account int8 NOT NULL,
    amount int8 NOT NULL CHECK (amount <> 0),
    recorded_ms int8 NOT NULL,
    CONSTRAINT entry_pk PRIMARY KEY (journal, account, recorded_ms)
) PARTITION BY RANGE (recorded_ms);
CREATE INDEX entry_by_account ON entry (account, recorded_ms);

-- What a segment of a lease cost, once nothing of it can change: written as the lease ends, never
-- edited. A correction cites the line that it corrects.
CREATE TABLE line (
    recorded_ms int8 NOT NULL,
    lease text NOT NULL,
    segment int NOT NULL,
    meter text NOT NULL,
    class text NOT NULL DEFAULT 'usage' CHECK (class IN ('usage', 'correction')),
    cites_ms int8,  -- recorded_ms of the line that this corrects
    tenant text NOT NULL,
    project text NOT NULL,
    job text NOT NULL,
    node text NOT NULL,
    site text NOT NULL,
    chip text NOT NULL,
    tier text NOT NULL,
    quantity_milli int8 NOT NULL,
    rate_nano_per_hour int8 NOT NULL,
    price_version int8 NOT NULL,
    starts_ms int8 NOT NULL,
    ends_ms int8 NOT NULL,
    counter int8 NOT NULL,
    granted int8 NOT NULL,
    charged int8 NOT NULL,
    amount_nano int8 NOT NULL,
    currency text NOT NULL,
    CONSTRAINT line_pk PRIMARY KEY (lease, segment, meter, class, recorded_ms),
    CHECK ((class = 'correction') = (cites_ms IS NOT NULL))
) PARTITION BY RANGE (recorded_ms);
CREATE INDEX line_of_tenant ON line (tenant, recorded_ms);

-- Outside the months: a key is used once for ever.
CREATE TABLE journal_key (
    idem_key text PRIMARY KEY,
    journal int8 NOT NULL,
    recorded_ms int8 NOT NULL
);

-- Hash chains: each journal is the next link of one of 16 lanes, so writers need not queue.
CREATE TABLE chain (
    lane int PRIMARY KEY,
    seq int8 NOT NULL DEFAULT 0,
    hash bytea NOT NULL DEFAULT '\x',
    recorded_ms int8 NOT NULL DEFAULT 0
) WITH (fillfactor = 20);
INSERT INTO chain (lane) SELECT generate_series(0, 15);
-- A lane's last link of a day: to be published, and compared later.
CREATE TABLE journal_head (
    day date NOT NULL,  -- UTC
    lane int NOT NULL,
    seq int8 NOT NULL,
    hash bytea NOT NULL,
    PRIMARY KEY (day, lane)
);

-- Sums of accounts up to (excluding) a time; with them, months can be detached.
CREATE TABLE rollup (
    account int8 NOT NULL REFERENCES account (id),
    upto_ms int8 NOT NULL,
    amount int8 NOT NULL,
    PRIMARY KEY (account, upto_ms)
);

-- Exchange: two journals of one currency each, and the rate between them as a fraction.
CREATE TABLE exchange (
    from_journal int8 PRIMARY KEY,
    to_journal int8 NOT NULL UNIQUE,
    from_currency text NOT NULL REFERENCES currency (code),
    to_currency text NOT NULL REFERENCES currency (code),
    rate_numerator int8 NOT NULL CHECK (rate_numerator > 0),
    rate_denominator int8 NOT NULL CHECK (rate_denominator > 0),
    recorded_ms int8 NOT NULL,
    CHECK (from_currency <> to_currency)
);

-- Something that must not happen did; the money is right all the same.
CREATE TABLE alarm (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    recorded_ms int8 NOT NULL,
    kind text NOT NULL,  -- UPPER_SNAKE
    tenant text NOT NULL DEFAULT '',
    lease text NOT NULL DEFAULT '',
    node text NOT NULL DEFAULT '',
    facts jsonb NOT NULL DEFAULT '{}',
    UNIQUE (kind, lease, node)  -- told once, not every tick
);

-- A node's last word on a segment, as it signed it.
CREATE TABLE signed_report (
    lease text NOT NULL,
    segment int NOT NULL,
    tenant text NOT NULL,
    node_key text NOT NULL,
    report text NOT NULL,  -- the canonical text of docs/metering.md
    signature bytea NOT NULL,
    total numeric NOT NULL,  -- of its counters: the last report is the one that counts furthest
    recorded_ms int8 NOT NULL,
    PRIMARY KEY (lease, segment)
) WITH (fillfactor = 50);

ALTER TABLE lease ADD COLUMN site text NOT NULL DEFAULT '',
    ADD COLUMN node_key text NOT NULL DEFAULT '',
    ADD COLUMN closed_ms int8;
-- What a segment has used, meter by meter: high-water marks. Between two decisions about its lease
-- it moves by itself (docs/billing.md, Ticks): rated_nano - base_nano is what that has charged.
-- Meters that are not in this catalogue stay in counter.
-- Columns lie so that a tick reads few and changes neighbours: fixed widths first, text last.
CREATE TABLE meter (
    id int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account int8 NOT NULL DEFAULT 0,
    rate_nano_per_hour int8 NOT NULL DEFAULT 0,
    cap int8 NOT NULL DEFAULT 0,  -- of run
    quick_until_ms int8 NOT NULL DEFAULT 0,
    starts_ms int8 NOT NULL DEFAULT 0,
    run int8 NOT NULL DEFAULT 0,
    egress int8 NOT NULL DEFAULT 0,
    storage int8 NOT NULL DEFAULT 0,
    energy int8 NOT NULL DEFAULT 0,
    provision int8 NOT NULL DEFAULT 0,
    rated_nano int8 NOT NULL DEFAULT 0,
    before_nano int8 NOT NULL DEFAULT 0,
    base_nano int8 NOT NULL DEFAULT 0,
    segment int NOT NULL,
    lease text NOT NULL,
    UNIQUE (lease, segment),
    CHECK (least(run, egress, storage, energy, provision) >= 0)
) WITH (fillfactor = 50);
INSERT INTO meter (lease, segment, run)
SELECT lease, segment, cumulative FROM counter WHERE meter = 'run';
DELETE FROM counter WHERE meter = 'run';

CREATE FUNCTION sum_is_zero_each() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    wrong int8;
BEGIN
    SELECT journal INTO wrong FROM added LEFT JOIN account ON account.id = added.account
    GROUP BY journal, currency HAVING sum(amount) <> 0 OR currency IS NULL LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'journal % does not sum to zero', wrong USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER entry_sum_is_zero AFTER INSERT ON entry
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION sum_is_zero_each();

-- The text that a journal's hash is of, after the hash of the link before it.
CREATE FUNCTION journal_text(id int8, recorded_ms int8, kind text, idem_key text, cause text,
    accounts int8[], amounts int8[]) RETURNS bytea LANGUAGE sql IMMUTABLE AS $$
    SELECT convert_to(concat_ws('|', $1, $2, $3, coalesce($4, ''), $5,
        array_to_string($6, ','), array_to_string($7, ',')), 'UTF8')
$$;

-- Appends one journal to a chain. Entries come in the order of accounts.
CREATE FUNCTION append_journal(number int8, kind_ text, key text, cause_ text, recorded int8,
    accounts int8[], amounts int8[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    link chain;
    next_hash bytea;
BEGIN
    SELECT * INTO link FROM chain ORDER BY lane LIMIT 1 FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        SELECT * INTO link FROM chain WHERE lane = pg_backend_pid() % 16 FOR UPDATE;
    END IF;
    next_hash := sha256(link.hash
        || journal_text(number, recorded, kind_, key, cause_, accounts, amounts));
    IF link.seq > 0 AND link.recorded_ms / 86400000 < recorded / 86400000 THEN
        INSERT INTO journal_head
        VALUES (date '1970-01-01' + (link.recorded_ms / 86400000)::int, link.lane, link.seq,
            link.hash)
        ON CONFLICT DO NOTHING;
    END IF;
    UPDATE chain SET seq = seq + 1, hash = next_hash, recorded_ms = recorded
    WHERE lane = link.lane;
    INSERT INTO journal VALUES (number, recorded, kind_, key, cause_, link.lane, link.seq + 1,
        link.hash, next_hash);
    INSERT INTO entry (journal, account, amount, recorded_ms)
    SELECT number, account, amount, recorded FROM unnest(accounts, amounts) AS t (account, amount);
    IF key IS NOT NULL THEN
        INSERT INTO journal_key VALUES (key, number, recorded);
    END IF;
END $$;

-- The one way into the books: a balanced journal, its link, and the balances that it moves.
-- holds: by how much each account's held changes with it; NULL = not at all.
CREATE FUNCTION post(kind text, key text, cause text, recorded_ms int8, accounts int8[],
    amounts int8[], holds int8[] DEFAULT NULL) RETURNS int8 LANGUAGE plpgsql SECURITY DEFINER
    SET search_path FROM CURRENT AS $$
DECLARE
    number int8 := nextval('journal_number');
BEGIN
    SELECT array_agg(account ORDER BY account), array_agg(amount ORDER BY account),
        array_agg(hold ORDER BY account)
    INTO accounts, amounts, holds
    FROM unnest(accounts, amounts, holds) AS t (account, amount, hold);
    PERFORM FROM balance WHERE balance.account = ANY(accounts) ORDER BY account FOR UPDATE;
    UPDATE balance SET posted = posted + t.amount, held = held + coalesce(t.hold, 0)
    FROM unnest(accounts, amounts, holds) AS t (account, amount, hold)
    WHERE balance.account = t.account;
    PERFORM append_journal(number, kind, key, cause, recorded_ms, accounts, amounts);
    RETURN number;
END $$;

-- floor(rate * ns / an hour), exact, in 64 bits: for rates up to 2.5e12 and 9,000 hours.
CREATE FUNCTION cost_nano(rate int8, ns int8) RETURNS int8 LANGUAGE sql IMMUTABLE AS $$
    SELECT rate * (ns / 3600000000000)
        + (rate * (ns % 3600000000000 / 1000000) + rate * (ns % 1000000) / 1000000) / 3600000
$$;

-- Folds the counters of segments about whose leases nothing is to be decided, and charges them: by
-- max, in the order of ids (as they come), one journal for all. What it may not take, it names.
-- An array that ends early says nothing of the rest.
CREATE FUNCTION tick(ids int8[], runs int8[], egresses int8[], storages int8[], energies int8[],
    provisions int8[], OUT moved int8, OUT refused int8[])
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
        RETURNING m.account, m.rated_nano - m.before_nano AS charge
    ), by_account AS (
        SELECT account, sum(charge)::int8 AS charge, count(*) AS number FROM folded
        GROUP BY account
    )
    SELECT sum(number), array_agg(account) FILTER (WHERE charge <> 0),
        array_agg(-charge) FILTER (WHERE charge <> 0)
    INTO moved, who, charges FROM by_account;
    moved := coalesce(moved, 0);
    IF who IS NOT NULL THEN
        SELECT array_agg(id), array_agg(share) INTO payees, shares FROM (
            SELECT revenue.id, -sum(charge)::int8 AS share
            FROM unnest(who, charges) AS t (account, charge)
            JOIN account AS a ON a.id = t.account
            JOIN account AS revenue ON revenue.kind = 'revenue' AND revenue.currency = a.currency
            GROUP BY revenue.id) AS paid;
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

-- Journals whose link does not hold: text, order, or the head of a lane. None = the books are whole.
CREATE FUNCTION broken_links() RETURNS TABLE (lane int, seq int8, journal int8)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path FROM CURRENT AS $$
    WITH written AS (
        SELECT j.*, lag(j.hash) OVER l AS last_hash, lag(j.seq) OVER l AS last_seq,
            sha256(j.prev_hash || journal_text(j.id, j.recorded_ms, j.kind, j.idem_key, j.cause,
                coalesce(e.accounts, '{}'), coalesce(e.amounts, '{}'))) AS right_hash
        FROM journal AS j LEFT JOIN LATERAL (
            SELECT array_agg(account ORDER BY account) AS accounts,
                array_agg(amount ORDER BY account) AS amounts
            FROM entry WHERE entry.journal = j.id AND entry.recorded_ms = j.recorded_ms
        ) AS e ON true
        WINDOW l AS (PARTITION BY j.lane ORDER BY j.seq)
    )
    SELECT w.lane, w.seq, w.id FROM written AS w
    -- Months are cut by time and lanes by number: at the cut, a link may have lost its neighbour.
    WHERE hash <> right_hash OR ((last_hash <> prev_hash OR w.seq <> last_seq + 1)
        AND w.recorded_ms > coalesce((SELECT max(upto_ms) FROM rollup) + 60000, 0))
    UNION ALL
    SELECT c.lane, c.seq, NULL FROM chain AS c
    WHERE c.seq > 0 AND c.hash IS DISTINCT FROM
        (SELECT w.hash FROM written AS w WHERE w.lane = c.lane ORDER BY w.seq DESC LIMIT 1)
$$;
-- One number for all that the books hold: equal heads, equal books.
CREATE FUNCTION books_head() RETURNS bytea LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path FROM CURRENT AS $$
    SELECT sha256(convert_to(string_agg(concat_ws('|', lane, seq, encode(hash, 'hex')), E'\n'
        ORDER BY lane), 'UTF8')) FROM chain
$$;

-- What a table of the books gets besides: nobody changes rows, and nobody goes past the parent.
CREATE FUNCTION close_table(name text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    service text;
BEGIN
    EXECUTE format('CREATE TRIGGER %1$s_insert_only BEFORE UPDATE OR DELETE OR TRUNCATE ON %1$I'
        ' FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()', name);
    FOR service IN
        SELECT DISTINCT acl.grantee::regrole FROM pg_class, aclexplode(relacl) AS acl
        WHERE oid = name::regclass AND acl.grantee <> relowner AND acl.grantee <> 0
    LOOP
        EXECUTE format('REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON %I FROM %s', name, service);
    END LOOP;
END $$;

-- Makes the partitions of the month of from_ms and of the months after it; how many are new.
-- What already lies in the default partition keeps its month there: never refuse to post.
CREATE FUNCTION create_months(from_ms int8, months int) RETURNS int LANGUAGE plpgsql
    SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    books text;
    first timestamp := date_trunc('month', to_timestamp(from_ms / 1000.0) AT TIME ZONE 'UTC');
    begins timestamp;
    part text;
    made int := 0;
BEGIN
    IF months NOT BETWEEN 1 AND 24 THEN
        RAISE EXCEPTION 'between 1 and 24 months' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended('gridlease.billing.months', 0));
    FOREACH books IN ARRAY ARRAY['journal', 'entry', 'line'] LOOP
        FOR n IN 0 .. months - 1 LOOP
            begins := first + make_interval(months => n);
            part := books || to_char(begins, '_YYYY_MM');
            CONTINUE WHEN to_regclass(quote_ident(part)) IS NOT NULL;
            BEGIN
                EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', part, books);
                EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%s) TO (%s)',
                    books, part, (extract(epoch FROM begins) * 1000)::int8,
                    (extract(epoch FROM begins + interval '1 month') * 1000)::int8);
                PERFORM close_table(part);
                EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY,'
                    ' FORCE ROW LEVEL SECURITY', part);
                made := made + 1;
            EXCEPTION WHEN check_violation THEN
                RAISE WARNING '% stays in the default partition', part;
            END;
        END LOOP;
    END LOOP;
    RETURN made;
END $$;

-- Each account's sum up to a time that is past, once.
CREATE FUNCTION roll_up(upto int8) RETURNS int LANGUAGE sql SECURITY DEFINER
    SET search_path FROM CURRENT AS $$
    WITH last AS (
        SELECT DISTINCT ON (account) account, upto_ms, amount FROM rollup
        ORDER BY account, upto_ms DESC
    ), added AS (
        INSERT INTO rollup (account, upto_ms, amount)
        SELECT a.id, upto, coalesce(l.amount, 0) + coalesce((SELECT sum(e.amount) FROM entry AS e
            WHERE e.account = a.id AND e.recorded_ms < upto
                AND e.recorded_ms >= coalesce(l.upto_ms, -9223372036854775808)), 0)::int8
        FROM account AS a LEFT JOIN last AS l ON l.account = a.id
        WHERE coalesce(l.upto_ms, -9223372036854775808) < upto
        RETURNING 1
    )
    SELECT count(*)::int FROM added
$$;
-- An account's sum of all entries ever.
CREATE FUNCTION account_sum(wanted int8) RETURNS int8 LANGUAGE sql STABLE AS $$
    SELECT (coalesce(r.amount, 0) + coalesce((SELECT sum(e.amount) FROM entry AS e
        WHERE e.account = wanted
            AND e.recorded_ms >= coalesce(r.upto_ms, -9223372036854775808)), 0))::int8
    FROM (SELECT) AS one LEFT JOIN LATERAL (SELECT amount, upto_ms FROM rollup
        WHERE account = wanted ORDER BY upto_ms DESC LIMIT 1) AS r ON true
$$;

-- Detaches months that ended before a time and are rolled up; what is detached stays as a table
-- of its own until an operator archives and drops it. How many were detached.
CREATE FUNCTION detach_months(before_ms int8) RETURNS int LANGUAGE plpgsql SECURITY DEFINER
    SET search_path FROM CURRENT AS $$
DECLARE
    part record;
    upto int8 := (SELECT max(upto_ms) FROM rollup);
    gone int := 0;
BEGIN
    FOR part IN
        SELECT parent.relname AS books, child.relname AS name,
            substring(pg_get_expr(child.relpartbound, child.oid) FROM 'TO \(''(-?\d+)''\)')::int8
                AS ends
        FROM pg_inherits JOIN pg_class AS parent ON parent.oid = inhparent
        JOIN pg_class AS child ON child.oid = inhrelid
        WHERE parent.relname IN ('journal', 'entry', 'line') AND child.relkind = 'r'
            AND parent.relnamespace = current_schema()::regnamespace
        ORDER BY child.relname
    LOOP
        CONTINUE WHEN part.ends IS NULL OR part.ends > before_ms OR part.ends > upto
            OR upto IS NULL;
        EXECUTE format('ALTER TABLE %I DETACH PARTITION %I', part.books, part.name);
        gone := gone + 1;
    END LOOP;
    RETURN gone;
END $$;

CREATE TABLE journal_other PARTITION OF journal DEFAULT;
CREATE TABLE entry_other PARTITION OF entry DEFAULT;
CREATE TABLE line_other PARTITION OF line DEFAULT;
SELECT close_table(name) FROM unnest(ARRAY['journal', 'entry', 'journal_other', 'entry_other',
    'line_other', 'journal_key', 'journal_head', 'rollup']) AS name;
SELECT create_months((extract(epoch FROM now()) * 1000)::int8, 3);

-- What was written before goes to the head of the chain, in its order.
DO $$
DECLARE
    old record;
BEGIN
    FOR old IN
        SELECT j.id, j.kind, j.idem_key, j.cause, j.recorded_ms,
            array_agg(e.account ORDER BY e.account) AS accounts,
            array_agg(e.amount ORDER BY e.account) AS amounts
        FROM journal_before AS j JOIN entry_before AS e ON e.journal = j.id
        GROUP BY j.id ORDER BY j.id
    LOOP
        PERFORM append_journal(old.id, old.kind, old.idem_key, old.cause, old.recorded_ms,
            old.accounts, old.amounts);
    END LOOP;
END $$;
DROP TABLE entry_before, journal_before;
INSERT INTO line
SELECT (extract(epoch FROM now()) * 1000)::int8, l.id, s.number, 'run', 'usage', NULL, l.tenant,
    l.project, l.job, l.node, '', l.chip, l.tier, l.quantity_milli, s.rate_nano_per_hour,
    s.price_version, s.starts_ms, s.ends_ms, coalesce(c.run, 0),
    (s.ends_ms - s.starts_ms) * 1000000, s.frozen_ns,
    div(s.rate_nano_per_hour::numeric * s.frozen_ns, 3600000000000)::int8, 'USD'
FROM lease AS l JOIN segment AS s ON s.lease = l.id
LEFT JOIN meter AS c ON c.lease = l.id AND c.segment = s.number
WHERE l.state = 'FINAL';

-- The service's role: reads the books, writes them through post() and tick() alone.
DO $$
DECLARE
    service text;
    name text;
BEGIN
    FOR service IN
        SELECT DISTINCT acl.grantee::regrole FROM pg_class, aclexplode(relacl) AS acl
        WHERE oid = 'lease'::regclass AND acl.grantee <> relowner AND acl.grantee <> 0
    LOOP
        FOREACH name IN ARRAY ARRAY['currency', 'chain'] LOOP
            EXECUTE format('REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON %I FROM %s', name, service);
        END LOOP;
        FOREACH name IN ARRAY ARRAY['line', 'alarm', 'exchange'] LOOP
            EXECUTE format('REVOKE UPDATE, DELETE, TRUNCATE ON %I FROM %s', name, service);
        END LOOP;
        EXECUTE format('REVOKE UPDATE, DELETE, TRUNCATE ON balance FROM %s', service);
        EXECUTE format('GRANT UPDATE (held, credit_limit) ON balance TO %s', service);
        EXECUTE format('REVOKE DELETE, TRUNCATE ON signed_report FROM %s', service);
        EXECUTE format('REVOKE ALL ON journal_other, entry_other, line_other FROM %s', service);
    END LOOP;
END $$;
CREATE TRIGGER line_insert_only BEFORE UPDATE OR DELETE OR TRUNCATE ON line
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER exchange_insert_only BEFORE UPDATE OR DELETE OR TRUNCATE ON exchange
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
REVOKE EXECUTE ON FUNCTION append_journal, close_table FROM PUBLIC;

-- Whose rows a transaction sees: gridlease.tenant, set in it: a tenant's name, '*' for the
-- platform's own work, nothing otherwise. Rows without a tenant follow the row they belong to.
CREATE FUNCTION sees_all() RETURNS boolean LANGUAGE sql STABLE AS
    $$ SELECT coalesce(current_setting('gridlease.tenant', true), '') = '*' $$;
DO $$
DECLARE
    rule text[];
BEGIN
    FOREACH rule SLICE 1 IN ARRAY ARRAY[
        ['account', 'tenant = (SELECT nullif(current_setting(''gridlease.tenant'', true), ''''))'],
        ['lease', 'tenant = (SELECT nullif(current_setting(''gridlease.tenant'', true), ''''))'],
        ['invoice', 'tenant = (SELECT nullif(current_setting(''gridlease.tenant'', true), ''''))'],
        ['line', 'tenant = (SELECT nullif(current_setting(''gridlease.tenant'', true), ''''))'],
        ['alarm', 'tenant = (SELECT nullif(current_setting(''gridlease.tenant'', true), ''''))'],
        ['signed_report',
            'tenant = (SELECT nullif(current_setting(''gridlease.tenant'', true), ''''))'],
        ['balance', 'EXISTS (SELECT FROM account AS a WHERE a.id = balance.account)'],
        ['entry', 'EXISTS (SELECT FROM account AS a WHERE a.id = entry.account)'],
        ['rollup', 'EXISTS (SELECT FROM account AS a WHERE a.id = rollup.account)'],
        ['segment', 'EXISTS (SELECT FROM lease AS l WHERE l.id = segment.lease)'],
        ['meter', 'EXISTS (SELECT FROM lease AS l WHERE l.id = meter.lease)'],
        ['counter', 'EXISTS (SELECT FROM lease AS l WHERE l.id = counter.lease)'],
        ['invoice_line', 'EXISTS (SELECT FROM invoice AS i WHERE i.id = invoice_line.invoice)'],
        ['journal', 'false'], ['journal_key', 'false'], ['exchange', 'false']]
    LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY',
            rule[1]);
        EXECUTE format('CREATE POLICY whose ON %I USING ((SELECT sees_all()) OR %s)',
            rule[1], rule[2]);
    END LOOP;
END $$;
ALTER TABLE line_other ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE journal_other ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE entry_other ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
