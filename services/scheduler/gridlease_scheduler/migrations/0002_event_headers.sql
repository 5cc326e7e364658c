-- The trace that an event happened in: it goes along with each telling of the event.
ALTER TABLE event ADD COLUMN headers jsonb NOT NULL DEFAULT '{}';
