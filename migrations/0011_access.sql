-- Who may do what.

-- A row a token that was ever created. Rows are never deleted: that there is one is what ends the open mode, and events name
-- their principals by id. The secret itself is nowhere: only the SHA-256 of the whole token, which has 256 random bits and so
-- needs no slow hash.
CREATE TABLE access_token (
    id              text  PRIMARY KEY CHECK (id ~ '^[0-9a-f]{16}$'),
    digest          bytea NOT NULL CHECK (octet_length(digest) = 32),
    name            text  NOT NULL CHECK (name ~ '^[A-Za-z0-9_.-]{1,64}$'),
    -- The person who answers for it; a second person is one with another owner.
    owner           text  CHECK (char_length(owner) BETWEEN 1 AND 200),
    scopes          text[] NOT NULL CHECK (cardinality(scopes) > 0
                        AND scopes <@ ARRAY['read', 'reserve', 'evidence', 'operate', 'release', 'proxy', 'admin', 'kill']),
    -- The only engines and domains that it may change; null for all.
    engines         text[] CHECK (cardinality(engines) > 0),
    domains         text[] CHECK (cardinality(domains) > 0),
    -- Requests a second and an instance; null for the server's own limit.
    rate_per_second bigint CHECK (rate_per_second BETWEEN 1 AND 1000000),
    created_at      timestamptz NOT NULL,
    created_by      text  NOT NULL CHECK (char_length(created_by) BETWEEN 1 AND 200),
    expires_at      timestamptz,
    revoked_at      timestamptz,
    revoked_by      text  CHECK (char_length(revoked_by) BETWEEN 1 AND 200),
    -- To the minute, and only ever later.
    last_used_at    timestamptz,
    CHECK ((revoked_at IS NULL) = (revoked_by IS NULL))
);

-- What a token may do is what it was created with; it can end, and it can be used. ENABLE ALWAYS, as for events.
CREATE FUNCTION holdfast_guard_token() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE'
       AND (NEW.id, NEW.digest, NEW.name, NEW.owner, NEW.scopes, NEW.engines, NEW.domains, NEW.rate_per_second,
            NEW.created_at, NEW.created_by, NEW.expires_at)
           IS NOT DISTINCT FROM
           (OLD.id, OLD.digest, OLD.name, OLD.owner, OLD.scopes, OLD.engines, OLD.domains, OLD.rate_per_second,
            OLD.created_at, OLD.created_by, OLD.expires_at)
       AND (OLD.revoked_at IS NULL OR (NEW.revoked_at, NEW.revoked_by) = (OLD.revoked_at, OLD.revoked_by)) THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'tokens are revoked, never changed or deleted (% of %)', TG_OP, OLD.id
        USING ERRCODE = 'insufficient_privilege';
END
$$;
CREATE TRIGGER guard BEFORE UPDATE OR DELETE ON access_token FOR EACH ROW EXECUTE FUNCTION holdfast_guard_token();
CREATE TRIGGER guard_truncate BEFORE TRUNCATE ON access_token FOR EACH STATEMENT EXECUTE FUNCTION holdfast_guard_truncate();
ALTER TABLE access_token ENABLE ALWAYS TRIGGER guard, ENABLE ALWAYS TRIGGER guard_truncate;

-- A server that knows no tokens would serve everybody.
UPDATE setting SET value = '11' WHERE key = 'schema_minimum';
