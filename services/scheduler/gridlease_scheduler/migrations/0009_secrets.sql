-- Secrets lie beside the spec, which is answered and told of, and are gone when the job has ended.
ALTER TABLE job ADD COLUMN secrets bytea;
CREATE FUNCTION forget_secrets() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.secrets := NULL;
    RETURN NEW;
END $$;
CREATE TRIGGER job_secrets_end BEFORE INSERT OR UPDATE ON job FOR EACH ROW
    WHEN (NEW.state IN ('SUCCEEDED', 'FAILED', 'CANCELLED') AND NEW.secrets IS NOT NULL)
    EXECUTE FUNCTION forget_secrets();
