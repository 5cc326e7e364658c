-- Why a spot price moved: one row for each chip and window in which it did, for ever; so two
-- reports of one window move it once.
CREATE TABLE spot_move (
    chip text NOT NULL CHECK (chip <> ''),
    window_number int8 NOT NULL,  -- end of the window, by its length
    before_version int8 NOT NULL REFERENCES price (version),
    total_milli int8 NOT NULL,
    used_milli int8 NOT NULL,
    waiting_milli int8 NOT NULL,
    recorded_ms int8 NOT NULL,
    PRIMARY KEY (chip, window_number)
);
CREATE TRIGGER spot_move_insert_only BEFORE UPDATE OR DELETE OR TRUNCATE ON spot_move
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- The service's role may not even try.
DO $$
DECLARE
    grantee text;
BEGIN
    FOR grantee IN
        SELECT DISTINCT acl.grantee::regrole
        FROM pg_class, aclexplode(relacl) AS acl
        WHERE oid = 'spot_move'::regclass AND acl.grantee <> relowner AND acl.grantee <> 0
    LOOP
        EXECUTE format('REVOKE UPDATE, DELETE, TRUNCATE ON spot_move FROM %s', grantee);
    END LOOP;
END $$;
