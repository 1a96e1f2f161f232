-- Old events may leave the database for files (holdfast archive). A row names a file and its events, and holds the ends of
-- their part of the chain: the hash before its first event, and that of its last. So what is left still joins.
--
-- The version before runs on: it only does not know why the first events of a stream are gone, and calls its trail damaged.
CREATE TABLE audit_archive (
    -- Events of control are never archived: as-of and the completeness of the book rest on them.
    stream      text   NOT NULL CHECK (stream IN ('risk', 'heimdall', 'kpi')),
    first_seq   bigint NOT NULL CHECK (first_seq > 0),
    last_seq    bigint NOT NULL CHECK (last_seq >= first_seq),
    hash_before bytea  NOT NULL CHECK (octet_length(hash_before) = 32),
    last_hash   bytea  NOT NULL CHECK (octet_length(last_hash) = 32),
    last_at     timestamptz NOT NULL,
    -- The file's name, without its directory: that may move.
    file        text   NOT NULL CHECK (file ~ '^[a-z0-9.-]{1,100}$'),
    -- SHA-256 of the file, lower-case hex.
    sha256      text   NOT NULL CHECK (sha256 ~ '^[0-9a-f]{64}$'),
    bytes       bigint NOT NULL CHECK (bytes > 0),
    archived_at timestamptz NOT NULL,
    -- When the events were brought back; null while only the file has them.
    restored_at timestamptz,
    PRIMARY KEY (stream, first_seq),
    CONSTRAINT audit_archive_times CHECK (
        last_at BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999999+00'
        AND archived_at BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999999+00'
        AND restored_at BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999999+00')
);

-- Which events are archived, and their hashes, never changes; the file does, when restored events are archived again.
CREATE FUNCTION holdfast_guard_archive() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE'
       AND (NEW.stream, NEW.first_seq, NEW.last_seq, NEW.hash_before, NEW.last_hash, NEW.last_at)
         = (OLD.stream, OLD.first_seq, OLD.last_seq, OLD.hash_before, OLD.last_hash, OLD.last_at) THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'what the archive of the audit trail holds is never changed or deleted (% of %/%)', TG_OP, OLD.stream, OLD.first_seq
        USING ERRCODE = 'insufficient_privilege';
END
$$;
CREATE TRIGGER guard BEFORE UPDATE OR DELETE ON audit_archive FOR EACH ROW EXECUTE FUNCTION holdfast_guard_archive();
CREATE TRIGGER guard_truncate BEFORE TRUNCATE ON audit_archive FOR EACH STATEMENT EXECUTE FUNCTION holdfast_guard_truncate();
ALTER TABLE audit_archive ENABLE ALWAYS TRIGGER guard, ENABLE ALWAYS TRIGGER guard_truncate;
