-- Risk events may store their outcome in a shorter form, which the version before cannot read. No instance of it may run
-- once that form is written.

-- The newest migration that an instance's program knows. The programs before this one leave it null.
ALTER TABLE instance ADD COLUMN newest_migration bigint CHECK (newest_migration > 0);

-- When a setting was last changed, for a setting whose age matters.
ALTER TABLE setting ADD COLUMN changed_at timestamptz
    CHECK (changed_at BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999999+00');

-- A program that does not know the schema's minimum cannot start; one that was paused while the minimum was raised cannot
-- go on: it cannot renew its lease, so its gate blocks. Minimums below 31 are older than the column.
CREATE FUNCTION holdfast_refuse_older_instance() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    minimum bigint;
BEGIN
    EXECUTE format('SELECT value::bigint FROM %I.setting WHERE key = $1', TG_TABLE_SCHEMA) INTO minimum USING 'schema_minimum';
    IF minimum >= 31 AND COALESCE(NEW.newest_migration, 0) < minimum THEN
        RAISE EXCEPTION 'the schema needs an instance that knows migration %: upgrade holdfast', minimum
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER newest_migration BEFORE INSERT OR UPDATE ON instance
    FOR EACH ROW EXECUTE FUNCTION holdfast_refuse_older_instance();

-- A fresh schema, on which no instance ever ran, has the shorter form from its first event on. On any other schema, a
-- server raises this minimum once no instance of the version before runs.
UPDATE setting SET value = '31'
WHERE key = 'schema_minimum'
  AND NOT EXISTS (SELECT FROM instance)
  AND EXISTS (SELECT FROM audit_head WHERE stream = 'risk' AND seq = 0);
