-- The office: what invoices ask for and who paid it; partners' lines, found without looking through
-- everybody's; months that are taken off, and what forbids it. Source: docs/invoices.md,
-- docs/suppliers.md, docs/operate-books.md.
SELECT set_config('gridlease.tenant', '*', true);
SELECT allow_words('journal', 'journal_kind', 'kind', ARRAY['payment', 'refund']);

-- When invoices are to be paid, and when grants end for who does not. The latest of a tenant holds;
-- tenant '' = of all that have none of their own; grace_days NULL = grants never end for it.
CREATE TABLE payment_terms (
    version int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant text NOT NULL,
    due_days int NOT NULL CHECK (due_days BETWEEN 0 AND 3650),
    grace_days int CHECK (grace_days BETWEEN 0 AND 3650),
    recorded_ms int8 NOT NULL
);
CREATE INDEX payment_terms_now ON payment_terms (tenant, version DESC);
INSERT INTO payment_terms (tenant, due_days, recorded_ms) VALUES ('', 14, 0);

-- What a final invoice asks for beyond what was prepaid: its tax, and what of its lines was charged
-- to the tenant's receivable account and not to prepaid credit. Each journal is asked for once.
CREATE TABLE receivable (
    invoice text PRIMARY KEY REFERENCES invoice (id),
    tenant text NOT NULL,
    issued_ms int8 NOT NULL,
    due_ms int8 NOT NULL,
    asked_nano int8 NOT NULL CHECK (asked_nano >= 0),
    paid_nano int8 NOT NULL DEFAULT 0 CHECK (paid_nano >= 0),
    credited_nano int8 NOT NULL DEFAULT 0 CHECK (credited_nano >= 0),
    CONSTRAINT paid_within_asked CHECK (paid_nano + credited_nano <= asked_nano)
) WITH (fillfactor = 80);
CREATE INDEX receivable_open ON receivable (tenant, due_ms)
    WHERE paid_nano + credited_nano < asked_nano;
CREATE INDEX receivable_due ON receivable (due_ms, invoice)
    WHERE paid_nano + credited_nano < asked_nano;

CREATE FUNCTION due_of(whose text, issued_ms int8) RETURNS int8 LANGUAGE sql STABLE AS $$
    SELECT issued_ms + due_days * 86400000::int8 FROM payment_terms
    WHERE tenant IN ('', whose) ORDER BY tenant = '', version DESC LIMIT 1
$$;
CREATE TABLE receivable_debt (
    journal int8 PRIMARY KEY,
    invoice text NOT NULL,
    tenant text NOT NULL,
    amount_nano int8 NOT NULL
);
-- Journals that charged what stands on an invoice to the tenant's receivable account.
CREATE FUNCTION debts_behind(wanted text, whose text) RETURNS TABLE (journal int8, nano int8)
    LANGUAGE sql STABLE AS $$
    WITH causes AS (
        SELECT lease AS cause FROM invoice_line WHERE invoice = wanted
        UNION SELECT concat(h.commitment, '/', h.hour_ms) FROM invoice_line AS c
        JOIN commitment_hour AS h ON h.commitment = c.lease
            AND h.hour_ms >= (c.line->>'starts_ms')::int8
            AND h.hour_ms < (c.line->>'ends_ms')::int8
        WHERE c.invoice = wanted
    )
    SELECT j.id, -sum(e.amount)::int8 FROM causes
    JOIN journal AS j ON j.cause = causes.cause
        AND j.kind IN ('meter_charge', 'correction', 'commitment_fee')
    JOIN entry AS e ON e.journal = j.id AND e.recorded_ms = j.recorded_ms
    JOIN account AS a ON a.id = e.account AND a.kind = 'receivable' AND a.tenant = whose
    WHERE NOT EXISTS (SELECT FROM receivable_debt AS d WHERE d.journal = j.id)
    GROUP BY j.id
$$;
CREATE FUNCTION invoice_asks() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    debt int8;
BEGIN
    IF EXISTS (SELECT FROM receivable WHERE invoice = NEW.id) THEN
        RETURN NULL;
    END IF;
    SELECT sum(nano) INTO debt FROM debts_behind(NEW.id, NEW.tenant);
    IF debt + NEW.tax_nano < 0 THEN  -- more was given back than is asked for: the next one has it
        debt := NULL;
    END IF;
    IF debt IS NOT NULL THEN
        INSERT INTO receivable_debt
        SELECT journal, NEW.id, NEW.tenant, nano FROM debts_behind(NEW.id, NEW.tenant);
    END IF;
    INSERT INTO receivable (invoice, tenant, issued_ms, due_ms, asked_nano)
    VALUES (NEW.id, NEW.tenant, NEW.issued_ms, due_of(NEW.tenant, NEW.issued_ms),
        NEW.tax_nano + coalesce(debt, 0));
    RETURN NULL;
END $$;
CREATE TRIGGER invoice_asks AFTER INSERT OR UPDATE ON invoice FOR EACH ROW
    WHEN (NEW.state = 'FINAL' AND NEW.kind = 'INVOICE') EXECUTE FUNCTION invoice_asks();
DO $$
DECLARE
    old record;
BEGIN
    FOR old IN SELECT * FROM invoice WHERE state = 'FINAL' AND kind = 'INVOICE' ORDER BY issued_ms LOOP
        INSERT INTO receivable_debt
        SELECT journal, old.id, old.tenant, nano FROM debts_behind(old.id, old.tenant)
        WHERE (SELECT sum(nano) FROM debts_behind(old.id, old.tenant)) + old.tax_nano >= 0;
    END LOOP;
END $$;
INSERT INTO receivable (invoice, tenant, issued_ms, due_ms, asked_nano, credited_nano)
SELECT i.id, i.tenant, i.issued_ms, due_of(i.tenant, i.issued_ms), i.tax_nano + coalesce(
        (SELECT sum(d.amount_nano) FROM receivable_debt AS d WHERE d.invoice = i.id), 0)::int8,
    least(i.tax_nano, coalesce((SELECT -sum(n.tax_nano) FROM invoice AS n
        WHERE n.cites = i.id AND n.kind = 'CREDIT_NOTE'), 0))
FROM invoice AS i WHERE i.state = 'FINAL' AND i.kind = 'INVOICE';

CREATE TABLE payment (
    tenant text NOT NULL,
    request_id text NOT NULL,
    invoice text NOT NULL REFERENCES receivable (invoice),
    amount_nano int8 NOT NULL CHECK (amount_nano <> 0),
    applied_nano int8 NOT NULL,
    prepaid_nano int8 NOT NULL,  -- beyond what the invoice asked for
    refunds text,
    note text NOT NULL,
    journal int8 NOT NULL,
    recorded_ms int8 NOT NULL,
    PRIMARY KEY (tenant, request_id),
    FOREIGN KEY (tenant, refunds) REFERENCES payment (tenant, request_id),
    CHECK (amount_nano = applied_nano + prepaid_nano),
    CHECK ((refunds IS NOT NULL) = (amount_nano < 0)),
    CHECK (sign(applied_nano) * sign(prepaid_nano) >= 0)
);
CREATE INDEX payment_of_invoice ON payment (invoice, journal);
CREATE INDEX payment_refunds ON payment (tenant, refunds) WHERE refunds IS NOT NULL;

-- Partners' lines by themselves: a statement reads a partner's in the order of their recording, and
-- what was kept back is found by when it is released. Each has what a statement says of it, so
-- that months of the books may be taken off.
CREATE TABLE partner_line (
    supplier text NOT NULL REFERENCES supplier (id),
    recorded_ms int8 NOT NULL,
    lease text NOT NULL,
    segment int NOT NULL,
    meter text NOT NULL,
    class text NOT NULL,
    contract int8 NOT NULL REFERENCES supplier_contract (id),
    node text NOT NULL,
    chip text NOT NULL,
    charged int8 NOT NULL,
    amount_nano int8 NOT NULL,
    holdback_nano int8 NOT NULL,
    release_ms int8,  -- NULL: nothing is kept back, or it was released
    PRIMARY KEY (supplier, recorded_ms, lease, segment, meter, class)
) WITH (fillfactor = 80);
CREATE INDEX partner_line_due ON partner_line (release_ms, recorded_ms, lease, segment)
    WHERE release_ms IS NOT NULL;

CREATE FUNCTION partner_lines() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
    SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO partner_line
    SELECT c.supplier, n.recorded_ms, n.lease, n.segment, n.meter, n.class, c.id, n.node, n.chip,
        n.charged, n.amount_nano, held.nano,
        CASE WHEN held.nano > 0 THEN n.recorded_ms + c.holdback_days * 86400000::int8 END
    FROM added AS n JOIN lease AS l ON l.id = n.lease AND l.contract <> 0
    JOIN supplier_contract AS c ON c.id = l.contract
    CROSS JOIN LATERAL (SELECT sign(n.amount_nano)::int8 * share_of(share_of(abs(n.amount_nano),
        c.share_permyriad), c.holdback_permyriad) AS nano) AS held
    WHERE n.amount_nano <> 0;
    RETURN NULL;
END $$;
CREATE TRIGGER partner_lines AFTER INSERT ON line
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION partner_lines();
INSERT INTO partner_line
SELECT c.supplier, n.recorded_ms, n.lease, n.segment, n.meter, n.class, c.id, n.node, n.chip,
    n.charged, n.amount_nano, held.nano,
    CASE WHEN held.nano > 0 AND NOT EXISTS (SELECT FROM holdback_release AS r
            WHERE r.lease = n.lease AND r.segment = n.segment AND r.meter = n.meter
                AND r.class = n.class AND r.line_ms = n.recorded_ms)
        THEN n.recorded_ms + c.holdback_days * 86400000::int8 END
FROM line AS n JOIN lease AS l ON l.id = n.lease AND l.contract <> 0
JOIN supplier_contract AS c ON c.id = l.contract
CROSS JOIN LATERAL (SELECT sign(n.amount_nano)::int8 * share_of(share_of(abs(n.amount_nano),
    c.share_permyriad), c.holdback_permyriad) AS nano) AS held
WHERE n.amount_nano <> 0;

-- An account's sum of all entries before a time, also where their months were taken off. A time
-- within such a month is not known any more: NULL.
CREATE FUNCTION account_sum_before(wanted int8, before_ms int8) RETURNS int8
    LANGUAGE sql STABLE AS $$
    SELECT (coalesce(r.amount, 0) + coalesce((SELECT sum(e.amount) FROM entry AS e
        WHERE e.account = wanted AND e.recorded_ms < before_ms
            AND e.recorded_ms >= coalesce(r.upto_ms, -9223372036854775808)), 0))::int8
    FROM (SELECT) AS one LEFT JOIN LATERAL (SELECT amount, upto_ms FROM rollup
        WHERE account = wanted AND upto_ms <= before_ms ORDER BY upto_ms DESC LIMIT 1) AS r ON true
$$;

DO $$
DECLARE
    name text;
    service text;
BEGIN
    FOREACH name IN ARRAY ARRAY['payment_terms', 'payment', 'receivable_debt'] LOOP
        EXECUTE format('CREATE TRIGGER %1$s_insert_only BEFORE UPDATE OR DELETE OR TRUNCATE ON %1$I'
            ' FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()', name);
    END LOOP;
    FOREACH name IN ARRAY ARRAY['payment_terms', 'receivable', 'payment', 'receivable_debt'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', name);
        EXECUTE format('CREATE POLICY whose ON %I USING ((SELECT sees_all()) OR tenant ='
            ' (SELECT nullif(current_setting(''gridlease.tenant'', true), '''')))', name);
    END LOOP;
    ALTER TABLE partner_line ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
    CREATE POLICY whose ON partner_line USING ((SELECT sees_all()));
    FOR service IN
        SELECT DISTINCT acl.grantee::regrole FROM pg_class, aclexplode(relacl) AS acl
        WHERE oid = 'lease'::regclass AND acl.grantee <> relowner AND acl.grantee <> 0
    LOOP
        FOREACH name IN ARRAY ARRAY['payment_terms', 'receivable', 'payment', 'receivable_debt',
            'partner_line'] LOOP
            EXECUTE format('REVOKE UPDATE, DELETE, TRUNCATE ON %I FROM %s', name, service);
        END LOOP;
        EXECUTE format('REVOKE INSERT ON partner_line FROM %s', service);
        EXECUTE format('GRANT UPDATE (paid_nano, credited_nano) ON receivable TO %s', service);
        EXECUTE format('GRANT UPDATE (release_ms) ON partner_line TO %s', service);
    END LOOP;
END $$;

-- How full chips were, by site: '' = of no site, or, of before, at all of them together.
ALTER TABLE chip_window ADD COLUMN site text NOT NULL DEFAULT '',
    DROP CONSTRAINT chip_window_pkey, ADD PRIMARY KEY (end_ms, chip, site);

-- What still needs a stretch of the books, [from_ms, until_ms): lines and credits that no final
-- invoice carries, and until when law may ask for what stands on invoices.
CREATE FUNCTION month_needs(from_ms int8, until_ms int8, OUT unbilled int8, OUT issued_ms int8)
    LANGUAGE sql STABLE AS $$
    WITH told AS (
        SELECT coalesce(f.id, CASE WHEN l.charged_ns = 0 AND n.amount_nano = 0 THEN '-' END)
                AS invoice, f.issued_ms
        FROM line AS n JOIN lease AS l ON l.id = n.lease
        LEFT JOIN LATERAL (SELECT i.id, i.issued_ms FROM invoice AS i
            WHERE i.state = 'FINAL' AND i.id = CASE n.class WHEN 'usage' THEN l.invoice
                ELSE (SELECT c.invoice FROM invoice_line AS c WHERE c.source = concat('line/',
                    n.lease, '/', n.segment, '/', n.meter, '/correction/', n.recorded_ms)) END
        ) AS f ON true
        WHERE n.recorded_ms >= from_ms AND n.recorded_ms < until_ms
        UNION ALL
        SELECT i.id, i.issued_ms FROM journal AS j
        LEFT JOIN invoice_line AS c ON c.source = concat('journal/', j.id)
        LEFT JOIN invoice AS i ON i.id = c.invoice AND i.state = 'FINAL'
        WHERE j.kind IN ('reclaim_credit', 'sla_credit', 'promo_credit')
            AND j.recorded_ms >= from_ms AND j.recorded_ms < until_ms
    )
    SELECT count(*) FILTER (WHERE told.invoice IS NULL), max(told.issued_ms) FROM told
$$;
