-- The leader keeps the fleet and the queue in memory and reads only what changed since: each row
-- tells the transaction of its last change that a plan cares about. A reader takes rows from the
-- oldest transaction that was open at its last reading, so it misses nothing.

ALTER TABLE node ADD COLUMN changed xid8 NOT NULL DEFAULT pg_current_xact_id();
CREATE INDEX node_changed ON node (changed);
ALTER TABLE job ADD COLUMN changed xid8 NOT NULL DEFAULT pg_current_xact_id();
CREATE INDEX job_changed ON job (changed);

CREATE FUNCTION mark_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.changed := pg_current_xact_id();
    RETURN NEW;
END $$;

-- Being heard is no change, but being heard after a silence is. What its leases hold changes only
-- along with its generation.
CREATE TRIGGER node_marked BEFORE UPDATE ON node FOR EACH ROW
    WHEN (NEW.changed = OLD.changed AND (
        OLD.generation <> NEW.generation OR OLD.state <> NEW.state
        OR OLD.cordoned <> NEW.cordoned OR OLD.draining <> NEW.draining
        OR OLD.inventory IS DISTINCT FROM NEW.inventory
        OR OLD.cpu_milli <> NEW.cpu_milli OR OLD.memory_bytes <> NEW.memory_bytes
        OR OLD.disk_bytes <> NEW.disk_bytes OR OLD.emulated <> NEW.emulated
        OR OLD.site <> NEW.site OR OLD.rack <> NEW.rack OR OLD.rail <> NEW.rail
        OR OLD.revoked_at IS DISTINCT FROM NEW.revoked_at
        OR OLD.seen_at IS NULL OR NEW.seen_at - OLD.seen_at > interval '20 s'))
    EXECUTE FUNCTION mark_changed();

CREATE TRIGGER job_marked BEFORE UPDATE ON job FOR EACH ROW
    WHEN (NEW.changed = OLD.changed AND (
        OLD.state <> NEW.state OR OLD.tasks <> NEW.tasks OR OLD.priority <> NEW.priority
        OR OLD.needs IS DISTINCT FROM NEW.needs))
    EXECUTE FUNCTION mark_changed();

CREATE FUNCTION mark_node_of_device() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE node SET changed = pg_current_xact_id()
    WHERE id = NEW.node_id AND changed <> pg_current_xact_id();
    RETURN NULL;
END $$;
CREATE TRIGGER device_came AFTER INSERT ON device FOR EACH ROW
    EXECUTE FUNCTION mark_node_of_device();
CREATE TRIGGER device_marked AFTER UPDATE ON device FOR EACH ROW
    WHEN (OLD.clean <> NEW.clean OR OLD.present <> NEW.present OR OLD.chip <> NEW.chip
        OR OLD.memory_bytes <> NEW.memory_bytes OR OLD.island <> NEW.island)
    EXECUTE FUNCTION mark_node_of_device();

-- A lease of eight devices made the server look up sixteen keys, one by one. One look at all that
-- a statement added says the same; devices and leases are never deleted.
ALTER TABLE lease_device DROP CONSTRAINT lease_device_lease_id_fkey;
ALTER TABLE lease_device DROP CONSTRAINT lease_device_node_id_device_id_fkey;
CREATE FUNCTION check_lease_device() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    wrong record;
BEGIN
    SELECT a.lease_id, a.node_id, a.device_id INTO wrong FROM added a
    LEFT JOIN device d ON d.node_id = a.node_id AND d.id = a.device_id
    LEFT JOIN lease l ON l.id = a.lease_id AND l.node_id = a.node_id
    WHERE d.id IS NULL OR l.id IS NULL LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'lease % does not stand on device % of %',
            wrong.lease_id, wrong.device_id, wrong.node_id
            USING ERRCODE = 'foreign_key_violation', CONSTRAINT = TG_NAME;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER lease_device_exists AFTER INSERT ON lease_device
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION check_lease_device();
