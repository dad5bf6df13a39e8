-- Who moved which alias, when, from where to where, on what evidence. Lines are added, never changed.
CREATE TABLE IF NOT EXISTS ledger (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at           timestamptz NOT NULL DEFAULT now(),
    model        text NOT NULL,
    alias        text NOT NULL CHECK (alias IN ('candidate', 'staging', 'champion')),
    from_version text,
    to_version   text NOT NULL,
    actor        text NOT NULL,
    reason       text NOT NULL,
    evidence     jsonb NOT NULL
);
