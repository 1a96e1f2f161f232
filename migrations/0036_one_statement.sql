-- One statement writes a batch of the ledger. A part of it that found another state than the decisions assumed must undo
-- the whole, which only an error does. This raises one.
CREATE FUNCTION holdfast_require(holds boolean, claim text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF holds THEN
        RETURN true;
    END IF;
    RAISE EXCEPTION '%', claim USING ERRCODE = 'data_corrupted';
END
$$;
