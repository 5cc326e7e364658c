-- Links between places, as operators describe them. A place: "nodes/N", "racks/SITE/RACK" or
-- "sites/SITE". What is promised of a link is the sum over the unclosed leases whose network_path
-- names it.
CREATE TABLE link (
    id text PRIMARY KEY,
    a text NOT NULL,
    b text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('ethernet', 'rdma', 'roce', 'wan')),
    capacity_mbps bigint NOT NULL CHECK (capacity_mbps > 0),
    latency_us bigint NOT NULL CHECK (latency_us >= 0),
    up boolean NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    CHECK (a <> b)
);
CREATE TRIGGER link_told AFTER INSERT OR UPDATE OR DELETE ON link
    FOR EACH STATEMENT EXECUTE FUNCTION tell_work();

-- Few leases have a path: these are looked through when a link changes.
CREATE INDEX lease_routed ON lease (id) WHERE state <> 'CLOSED' AND network_path <> '';
