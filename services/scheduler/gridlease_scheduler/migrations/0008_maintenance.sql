-- A cordon says why, and may end by itself.
ALTER TABLE node ADD COLUMN cordon_note text NOT NULL DEFAULT '',
    ADD COLUMN cordoned_until timestamptz;
CREATE INDEX node_cordon_ends ON node (cordoned_until) WHERE cordoned_until IS NOT NULL;
