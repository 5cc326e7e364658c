-- The price book along both of its times, by site, and with priorities. Source: docs/prices.md.
SELECT set_config('gridlease.tenant', '*', true);

-- Most specific wins: a site's own price, or else that of everywhere (site ''). What is withdrawn
-- is none. The past is written anew by corrections alone.
ALTER TABLE price ADD COLUMN site text NOT NULL DEFAULT '',
    ADD COLUMN withdrawn boolean NOT NULL DEFAULT false,
    ADD COLUMN correction boolean NOT NULL DEFAULT false,
    DROP CONSTRAINT price_check,
    ADD CONSTRAINT no_silent_past CHECK (effective_ms >= recorded_ms OR correction);
DROP INDEX price_in_force;
CREATE INDEX price_in_force ON price (chip, tier, site, effective_ms DESC, version DESC);

-- What a job's priority makes of its price, by thousandths: band n begins at above[n].
CREATE TABLE priority_multiplier (
    version int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    above int[] NOT NULL,
    permille int[] NOT NULL,
    effective_ms int8 NOT NULL,
    recorded_ms int8 NOT NULL,
    correction boolean NOT NULL DEFAULT false,
    request_id text NOT NULL UNIQUE,
    CHECK (cardinality(above) BETWEEN 1 AND 101 AND cardinality(above) = cardinality(permille)),
    CHECK (above[1] = 0 AND 0 <= ALL (permille) AND 10000 >= ALL (permille)),
    CONSTRAINT no_silent_past CHECK (effective_ms >= recorded_ms OR correction)
);

-- A tariff of run time is what a lease costs at the least, once it ran; its price is the book's.
ALTER TABLE tariff DROP CONSTRAINT tariff_meter_check,
    ADD CONSTRAINT tariff_meter_check
        CHECK (meter IN ('egress', 'storage', 'energy', 'provision', 'run')),
    ADD CONSTRAINT run_is_priced_by_the_book CHECK (meter <> 'run' OR price_nano = '{0}');

-- Each version of an entry as rectangles of the two times: in force in [valid_from, valid_to), so
-- written in [recorded_from, recorded_to); NULL = no end yet. They are made by the entries alone:
-- a rectangle is never changed but for its recorded_to, once, by the entry that supersedes it.
-- Ranges of numbers stand in for equality, so that no extension is needed.
CREATE TABLE book_key (
    id int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    book text NOT NULL CHECK (book IN ('price', 'priority', 'tariff')),
    name text[] NOT NULL,
    UNIQUE (book, name)
);
CREATE TABLE book_span (
    id int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key int8 NOT NULL REFERENCES book_key (id),
    version int8 NOT NULL,
    valid_from int8 NOT NULL,
    valid_to int8 CHECK (valid_to > valid_from),
    recorded_from int8 NOT NULL,
    recorded_to int8 CHECK (recorded_to >= recorded_from),
    CONSTRAINT no_overlap EXCLUDE USING gist (int8range(key, key, '[]') WITH &&,
        int8range(valid_from, valid_to) WITH &&, int8range(recorded_from, recorded_to) WITH &&)
);
CREATE INDEX book_span_now ON book_span (key, valid_from) WHERE recorded_to IS NULL;

-- Writes an entry's rectangles. It is recorded after all that was written before it, its version
-- is the highest, and what is no correction begins when it is recorded, at the earliest.
CREATE FUNCTION enter_book(of_book text, whose text[], past boolean, numbers regclass,
    INOUT entry int8, INOUT effective int8, INOUT recorded int8)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    mine int8;
    was record;
    until int8;
BEGIN
    INSERT INTO book_key (book, name) VALUES (of_book, whose) ON CONFLICT DO NOTHING;
    SELECT k.id INTO mine FROM book_key AS k WHERE k.book = of_book AND k.name = whose FOR UPDATE;
    SELECT max(s.version) AS version, max(s.recorded_from) AS recorded INTO was
    FROM book_span AS s WHERE s.key = mine;
    recorded := greatest(recorded, was.recorded);
    IF entry < was.version THEN
        entry := nextval(numbers);
    END IF;
    IF NOT past THEN
        effective := greatest(effective, recorded);
    END IF;
    SELECT * INTO was FROM book_span AS s WHERE s.key = mine AND s.recorded_to IS NULL
        AND s.valid_from <= effective AND coalesce(s.valid_to > effective, true);
    IF FOUND THEN
        UPDATE book_span AS s SET recorded_to = recorded WHERE s.id = was.id;
        IF was.valid_from < effective THEN
            INSERT INTO book_span (key, version, valid_from, valid_to, recorded_from)
            VALUES (mine, was.version, was.valid_from, effective, recorded);
        END IF;
        until := was.valid_to;
    ELSE
        SELECT min(s.valid_from) INTO until FROM book_span AS s
        WHERE s.key = mine AND s.recorded_to IS NULL AND s.valid_from > effective;
    END IF;
    INSERT INTO book_span (key, version, valid_from, valid_to, recorded_from)
    VALUES (mine, entry, effective, until, recorded);
END $$;
CREATE FUNCTION entry_makes_spans() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
    SET search_path FROM CURRENT AS $$
DECLARE
    told jsonb := to_jsonb(NEW);
    whose text[] := '{}';
BEGIN
    FOR n IN 1 .. TG_NARGS - 1 LOOP
        whose := whose || (told ->> TG_ARGV[n]);
    END LOOP;
    SELECT e.entry, e.effective, e.recorded INTO NEW.version, NEW.effective_ms, NEW.recorded_ms
    FROM enter_book(TG_ARGV[0], whose, coalesce((told ->> 'correction')::boolean, false),
        pg_get_serial_sequence(TG_TABLE_NAME, 'version')::regclass, NEW.version,
        NEW.effective_ms, NEW.recorded_ms) AS e;
    RETURN NEW;
END $$;

SELECT count(enter_book('price', ARRAY[chip, tier, site], true, NULL, version, effective_ms,
    recorded_ms))
FROM (SELECT * FROM price ORDER BY version) AS written;
SELECT count(enter_book('tariff', ARRAY[meter, site], true, NULL, version, effective_ms,
    recorded_ms))
FROM (SELECT * FROM tariff ORDER BY version) AS written;
CREATE TRIGGER price_makes_spans BEFORE INSERT ON price
    FOR EACH ROW EXECUTE FUNCTION entry_makes_spans('price', 'chip', 'tier', 'site');
CREATE TRIGGER priority_makes_spans BEFORE INSERT ON priority_multiplier
    FOR EACH ROW EXECUTE FUNCTION entry_makes_spans('priority');
CREATE TRIGGER tariff_makes_spans BEFORE INSERT ON tariff
    FOR EACH ROW EXECUTE FUNCTION entry_makes_spans('tariff', 'meter', 'site');

CREATE FUNCTION spans_are_the_entries() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF pg_trigger_depth() < 2 OR (TG_OP = 'UPDATE' AND (OLD.recorded_to IS NOT NULL
        OR (NEW.id, NEW.key, NEW.version, NEW.valid_from, NEW.recorded_from)
            IS DISTINCT FROM (OLD.id, OLD.key, OLD.version, OLD.valid_from, OLD.recorded_from)
        OR NEW.valid_to IS DISTINCT FROM OLD.valid_to))
    THEN
        RAISE EXCEPTION 'book_span is insert only' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER spans_are_the_entries BEFORE INSERT OR UPDATE ON book_span
    FOR EACH ROW EXECUTE FUNCTION spans_are_the_entries();
REVOKE EXECUTE ON FUNCTION enter_book FROM PUBLIC;

-- The book as of two times is one query of these: WHERE valid @> V AND recorded @> T.
CREATE VIEW price_book WITH (security_invoker = true) AS
SELECT p.version, p.chip, p.tier, p.site, p.price_nano_per_hour, p.currency, p.withdrawn,
    p.correction, p.effective_ms, p.recorded_ms, s.valid_from, s.valid_to, s.recorded_from,
    s.recorded_to, int8range(s.valid_from, s.valid_to) AS valid,
    int8range(s.recorded_from, s.recorded_to) AS recorded
FROM book_span AS s JOIN book_key AS k ON k.id = s.key AND k.book = 'price'
JOIN price AS p ON p.version = s.version;
CREATE VIEW priority_book WITH (security_invoker = true) AS
SELECT p.*, s.valid_from, s.valid_to, s.recorded_from, s.recorded_to,
    int8range(s.valid_from, s.valid_to) AS valid,
    int8range(s.recorded_from, s.recorded_to) AS recorded
FROM book_span AS s JOIN book_key AS k ON k.id = s.key AND k.book = 'priority'
JOIN priority_multiplier AS p ON p.version = s.version;

-- Of a rate, what the job's priority adds to it (below zero: takes off), by which version of the
-- table (0 = there was none). A segment is charged at the whole rate; documents show both parts.
ALTER TABLE lease ADD COLUMN surcharge_nano_per_hour int8 NOT NULL DEFAULT 0,
    ADD COLUMN priority_version int8 NOT NULL DEFAULT 0,
    ADD CONSTRAINT lease_base_rate CHECK (surcharge_nano_per_hour <= rate_nano_per_hour);
ALTER TABLE segment ADD COLUMN surcharge_nano_per_hour int8 NOT NULL DEFAULT 0,
    ADD COLUMN priority_version int8 NOT NULL DEFAULT 0,
    ADD CONSTRAINT segment_base_rate CHECK (surcharge_nano_per_hour <= rate_nano_per_hour);
ALTER TABLE line ADD COLUMN surcharge_nano_per_hour int8 NOT NULL DEFAULT 0,
    ADD COLUMN priority_version int8 NOT NULL DEFAULT 0;

-- A window moves the price of a chip at a site, once.
ALTER TABLE spot_move ADD COLUMN site text NOT NULL DEFAULT '',
    ADD COLUMN floor_nano int8 NOT NULL DEFAULT 0,
    DROP CONSTRAINT spot_move_pkey,
    ADD PRIMARY KEY (chip, site, window_number);

DO $$
DECLARE
    name text;
    service text;
BEGIN
    FOREACH name IN ARRAY ARRAY['priority_multiplier', 'book_key', 'book_span'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', name);
        EXECUTE format('CREATE POLICY whose ON %I USING (true)', name);  -- everybody's
        EXECUTE format('CREATE TRIGGER %1$s_stays BEFORE DELETE OR TRUNCATE ON %1$I'
            ' FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()', name);
        FOR service IN
            SELECT DISTINCT acl.grantee::regrole FROM pg_class, aclexplode(relacl) AS acl
            WHERE oid = 'lease'::regclass AND acl.grantee <> relowner AND acl.grantee <> 0
        LOOP
            EXECUTE format('REVOKE UPDATE, DELETE, TRUNCATE ON %I FROM %s', name, service);
            IF name <> 'priority_multiplier' THEN
                EXECUTE format('REVOKE INSERT ON %I FROM %s', name, service);
            END IF;
            EXECUTE format('REVOKE INSERT, UPDATE, DELETE ON price_book, priority_book FROM %s',
                service);
        END LOOP;
    END LOOP;
END $$;
CREATE TRIGGER priority_multiplier_insert_only BEFORE UPDATE ON priority_multiplier
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER book_key_insert_only BEFORE UPDATE ON book_key
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
