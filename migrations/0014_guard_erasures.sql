-- What was erased is known for ever: a row is the proof of a text that is gone. It is added with its event, and never changed.
CREATE FUNCTION holdfast_guard_erasure() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'erasures of the audit trail are never changed or deleted (% of %/%)', TG_OP, OLD.stream, OLD.seq
        USING ERRCODE = 'insufficient_privilege';
END
$$;
CREATE TRIGGER guard BEFORE UPDATE OR DELETE ON audit_erasure FOR EACH ROW EXECUTE FUNCTION holdfast_guard_erasure();
ALTER TABLE audit_erasure ENABLE ALWAYS TRIGGER guard;
