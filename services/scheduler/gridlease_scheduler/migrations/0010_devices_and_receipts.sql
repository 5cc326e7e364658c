-- What ails a device keeps work off it; what it was measured to do is told with it. What a node
-- wiped for a lease, in the node's own words and under its own key.
ALTER TABLE device ADD COLUMN ailment text NOT NULL DEFAULT '',
    ADD COLUMN facts jsonb NOT NULL DEFAULT '{}';
ALTER TABLE lease ADD COLUMN wipe_receipt bytea;

DROP TRIGGER device_marked ON device;
CREATE TRIGGER device_marked AFTER UPDATE ON device FOR EACH ROW
    WHEN (OLD.clean <> NEW.clean OR OLD.present <> NEW.present OR OLD.chip <> NEW.chip
        OR OLD.memory_bytes <> NEW.memory_bytes OR OLD.island <> NEW.island
        OR OLD.ailment <> NEW.ailment)
    EXECUTE FUNCTION mark_node_of_device();
