-- Reads that grew with all that was ever done go by an index to what they need.

-- The register reads the tokens that are valid and the last that ended, and the limit of tokens counts those that are valid: by when a
-- token ends, or ended.
CREATE INDEX access_token_end ON access_token (COALESCE(LEAST(revoked_at, expires_at), 'infinity'));
-- The list of tokens, newest first, a page at a time.
CREATE INDEX access_token_page ON access_token (created_at, id);
