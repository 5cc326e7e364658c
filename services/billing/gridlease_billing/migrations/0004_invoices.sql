-- Invoices as docs/invoices.md describes them: drafts that become final once, numbers by legal
-- entity, taxes, credit notes that never give back more than their line.
SELECT set_config('gridlease.tenant', '*', true);

-- Insert only: the newest version holds, for invoices to come.
CREATE TABLE legal_entity (
    version bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    entity text NOT NULL CHECK (entity <> ''),
    name text NOT NULL,
    address text NOT NULL,
    country text NOT NULL CHECK (country ~ '^([A-Z]{2})?$'),
    tax_id text NOT NULL,
    prefix text NOT NULL CHECK (prefix ~ '^[A-Z][A-Z0-9]{0,7}$'),
    recorded_ms int8 NOT NULL
);
-- Whose numbers begin with what: one entity's, for ever.
CREATE TABLE invoice_prefix (
    prefix text PRIMARY KEY,
    entity text NOT NULL
);
INSERT INTO legal_entity (entity, name, address, country, tax_id, prefix, recorded_ms)
VALUES ('default', 'Gridlease', '', '', '', 'GL', 0);
INSERT INTO invoice_prefix VALUES ('GL', 'default');

CREATE TABLE tax_profile (
    version bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant text NOT NULL CHECK (tenant <> ''),
    name text NOT NULL,
    address text NOT NULL,
    country text NOT NULL CHECK (country ~ '^([A-Z]{2})?$'),
    tax_id text NOT NULL,
    language text NOT NULL CHECK (language IN ('en', 'zh')),
    entity text NOT NULL,
    recorded_ms int8 NOT NULL
);
CREATE INDEX tax_profile_of_tenant ON tax_profile (tenant, version DESC);

-- In force from effective_ms until the country's next. Times are midnight UTC of the day.
CREATE TABLE tax_rate (
    country text NOT NULL CHECK (country ~ '^[A-Z]{2}$'),
    effective_ms int8 NOT NULL,
    name text NOT NULL,
    permyriad int NOT NULL CHECK (permyriad BETWEEN 0 AND 10000),
    source text NOT NULL CHECK (source <> ''),
    recorded_ms int8 NOT NULL,
    PRIMARY KEY (country, effective_ms)
);
INSERT INTO tax_rate
SELECT country, (extract(epoch FROM (day || ' 00:00:00+00')::timestamptz) * 1000)::int8, name,
    permyriad, source, 0
FROM (VALUES
    ('AT', '1984-01-01', 'VAT', 2000, 'UStG 1994 (Austria), section 10'),
    ('AU', '2000-07-01', 'GST', 1000, 'A New Tax System (Goods and Services Tax) Act 1999, s 9-70'),
    ('CH', '2024-01-01', 'VAT', 810, 'MWSTG (Switzerland), article 25'),
    ('CN', '2016-05-01', 'VAT', 600, 'Caishui [2016] No. 36, modern services'),
    ('DE', '2007-01-01', 'VAT', 1900, 'UStG (Germany), section 12 (1)'),
    ('ES', '2012-09-01', 'VAT', 2100, 'Ley 37/1992, article 90'),
    ('FR', '2014-01-01', 'VAT', 2000, 'CGI, article 278'),
    ('GB', '2011-01-04', 'VAT', 2000, 'Value Added Tax Act 1994, section 2'),
    ('IE', '2021-03-01', 'VAT', 2300, 'Value-Added Tax Consolidation Act 2010, section 46'),
    ('IT', '2013-10-01', 'VAT', 2200, 'DPR 633/1972, article 16'),
    ('JP', '2019-10-01', 'JCT', 1000, 'Consumption Tax Act, article 29, with local tax'),
    ('NL', '2012-10-01', 'VAT', 2100, 'Wet op de omzetbelasting 1968, article 9'),
    ('SG', '2024-01-01', 'GST', 900, 'Goods and Services Tax Act 1993, section 16')
) AS known (country, day, name, permyriad, source);

ALTER TABLE invoice_counter ADD COLUMN entity text NOT NULL DEFAULT 'default',
    ADD COLUMN series text NOT NULL DEFAULT 'INVOICE'
        CHECK (series IN ('INVOICE', 'CREDIT_NOTE')),
    DROP CONSTRAINT invoice_counter_pkey,
    ADD PRIMARY KEY (entity, series, year);

ALTER TABLE invoice ALTER COLUMN number DROP NOT NULL,
    DROP CONSTRAINT invoice_total_nano_check, DROP CONSTRAINT invoice_payable_nano_check,
    ADD COLUMN kind text NOT NULL DEFAULT 'INVOICE' CHECK (kind IN ('INVOICE', 'CREDIT_NOTE')),
    ADD COLUMN state text NOT NULL DEFAULT 'FINAL' CHECK (state IN ('DRAFT', 'FINAL')),
    ADD COLUMN format int NOT NULL DEFAULT 1,  -- of what the digest is over
    ADD COLUMN cites text REFERENCES invoice (id),
    ADD COLUMN parties jsonb NOT NULL DEFAULT '{}',  -- seller, buyer and tax, as they stood
    ADD COLUMN net_nano int8 NOT NULL DEFAULT 0,
    ADD COLUMN tax_nano int8 NOT NULL DEFAULT 0,
    ADD CONSTRAINT final_has_number CHECK ((state = 'FINAL') = (number IS NOT NULL)),
    ADD CONSTRAINT note_cites CHECK ((kind = 'CREDIT_NOTE') = (cites IS NOT NULL)),
    ADD CONSTRAINT kind_has_sign CHECK (CASE kind
        WHEN 'INVOICE' THEN least(total_nano, net_nano, tax_nano, payable_nano) >= 0
        ELSE greatest(total_nano, net_nano, tax_nano, payable_nano) <= 0 END),
    ADD CONSTRAINT net_and_tax CHECK (format = 1 OR payable_nano = net_nano + tax_nano);

CREATE FUNCTION invoice_becomes_final() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.state <> 'DRAFT' OR NEW.state <> 'FINAL'
        OR (NEW.id, NEW.tenant, NEW.project, NEW.job, NEW.request_id, NEW.kind, NEW.currency,
            NEW.total_nano) IS DISTINCT FROM (OLD.id, OLD.tenant, OLD.project, OLD.job,
            OLD.request_id, OLD.kind, OLD.currency, OLD.total_nano)
    THEN
        RAISE EXCEPTION 'invoice is insert only' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;
DROP TRIGGER invoice_insert_only ON invoice;
CREATE TRIGGER invoice_insert_only BEFORE DELETE OR TRUNCATE ON invoice
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER invoice_becomes_final BEFORE UPDATE ON invoice
    FOR EACH ROW EXECUTE FUNCTION invoice_becomes_final();

-- A line names what of the books it stands for: that is billed once for ever.
ALTER TABLE invoice_line DROP CONSTRAINT invoice_line_lease_segment_meter_key,
    DROP CONSTRAINT invoice_line_lease_fkey,
    ADD COLUMN source text NOT NULL DEFAULT '';
ALTER TABLE invoice_line DISABLE TRIGGER invoice_line_insert_only;
UPDATE invoice_line SET source = 'line/' || lease || '/' || segment || '/' || meter || '/usage';
ALTER TABLE invoice_line ENABLE TRIGGER invoice_line_insert_only;
CREATE UNIQUE INDEX invoice_line_once ON invoice_line (source);
CREATE INDEX invoice_line_of_lease ON invoice_line (lease, segment, meter);
CREATE INDEX journal_of_credits ON journal (cause)
    WHERE kind IN ('reclaim_credit', 'sla_credit', 'promo_credit');
CREATE INDEX line_corrections ON line (tenant, project) WHERE class = 'correction';

-- What a final invoice's line asks for, and what of it credit notes have given back.
CREATE TABLE line_split (
    invoice text NOT NULL,
    position int NOT NULL,
    net_nano int8 NOT NULL,
    tax_nano int8 NOT NULL,
    net_credited_nano int8 NOT NULL DEFAULT 0,
    tax_credited_nano int8 NOT NULL DEFAULT 0,
    PRIMARY KEY (invoice, position),
    FOREIGN KEY (invoice, position) REFERENCES invoice_line (invoice, position),
    CONSTRAINT credit_within_line CHECK (
        net_credited_nano BETWEEN 0 AND greatest(0, net_nano)
        AND tax_credited_nano BETWEEN 0 AND greatest(0, tax_nano))
);
CREATE FUNCTION credited_only_grows() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.net_credited_nano < OLD.net_credited_nano
        OR NEW.tax_credited_nano < OLD.tax_credited_nano
        OR (NEW.invoice, NEW.position, NEW.net_nano, NEW.tax_nano)
            IS DISTINCT FROM (OLD.invoice, OLD.position, OLD.net_nano, OLD.tax_nano)
    THEN
        RAISE EXCEPTION 'line_split would move backwards' USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER credited_only_grows BEFORE UPDATE ON line_split
    FOR EACH ROW EXECUTE FUNCTION credited_only_grows();
CREATE TRIGGER line_split_stays BEFORE DELETE OR TRUNCATE ON line_split
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

DO $$
DECLARE
    name text;
    service text;
BEGIN
    FOREACH name IN ARRAY ARRAY['legal_entity', 'invoice_prefix', 'tax_profile', 'tax_rate'] LOOP
        EXECUTE format('CREATE TRIGGER %1$s_insert_only BEFORE UPDATE OR DELETE OR TRUNCATE ON %1$I'
            ' FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()', name);
    END LOOP;
    FOR service IN
        SELECT DISTINCT acl.grantee::regrole FROM pg_class, aclexplode(relacl) AS acl
        WHERE oid = 'lease'::regclass AND acl.grantee <> relowner AND acl.grantee <> 0
    LOOP
        FOREACH name IN ARRAY ARRAY['legal_entity', 'invoice_prefix', 'tax_profile', 'tax_rate',
            'line_split'] LOOP
            EXECUTE format('REVOKE UPDATE, DELETE, TRUNCATE ON %I FROM %s', name, service);
        END LOOP;
        EXECUTE format('GRANT UPDATE (net_credited_nano, tax_credited_nano) ON line_split TO %s',
            service);
        EXECUTE format('GRANT UPDATE (number, state, issued_ms, parties, net_nano, tax_nano,'
            ' payable_nano, content_sha256) ON invoice TO %s', service);
    END LOOP;
END $$;

ALTER TABLE tax_profile ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY whose ON tax_profile USING ((SELECT sees_all())
    OR tenant = (SELECT nullif(current_setting('gridlease.tenant', true), '')));
ALTER TABLE line_split ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY whose ON line_split USING ((SELECT sees_all())
    OR EXISTS (SELECT FROM invoice AS i WHERE i.id = line_split.invoice));
