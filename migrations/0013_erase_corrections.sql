-- A correction has to say why, and its reason may have to be erased like any other text (`holdfast audit erase`). A CHECK cannot see
-- whether a text was erased, so that a reason is given is from here on its one parser's to check; that a correction moves nothing
-- outstanding stays. The old constraint has no name of its own, so it is found by what it says; what it held for every row, the new
-- one need not look at again.
DO $$
DECLARE
    found text;
BEGIN
    SELECT conname INTO STRICT found
    FROM pg_constraint
    WHERE conrelid = 'risk_event'::regclass AND contype = 'c' AND pg_get_constraintdef(oid) LIKE '%ADJUST%reason IS NOT NULL%';
    EXECUTE format('ALTER TABLE risk_event DROP CONSTRAINT %I', found);
END
$$;
ALTER TABLE risk_event ADD CONSTRAINT risk_event_adjust_check CHECK (action <> 'ADJUST' OR open_delta = 0) NOT VALID;
