-- What the slow path looks at: what each task tells of itself, and services that may rest.

-- Of the attempt that runs if it was told after the job was placed.
ALTER TABLE task
    ADD COLUMN progress jsonb,
    ADD COLUMN progress_at timestamptz;

-- follows_load: a service whose replicas follow its requests. asleep: it waits for a request and
-- is not placed before.
ALTER TABLE job
    DROP COLUMN progress,
    ADD COLUMN follows_load boolean NOT NULL DEFAULT false,
    ADD COLUMN asleep boolean NOT NULL DEFAULT false,
    ADD CHECK (follows_load OR NOT asleep);

-- Few jobs change their size, and each pass of the slow path asks which.
CREATE INDEX job_flexible ON job (name)
    WHERE state IN ('PENDING', 'RUNNING') AND (tasks_min < tasks_max OR follows_load);
