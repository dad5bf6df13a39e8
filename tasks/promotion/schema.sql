-- Who moved which alias, when, from where to where, on what evidence. Lines are added, never changed: a trigger refuses the
-- rest, and each line holds the hash of the one before it.
DO $$ BEGIN -- the ledger of version 0.1.0 had no chain; its lines are copied into the new one
    IF to_regclass('ledger') IS NOT NULL AND NOT EXISTS (
        SELECT FROM information_schema.columns WHERE table_name = 'ledger' AND column_name = 'hash') THEN
        ALTER TABLE ledger RENAME TO ledger_before_chain;
    END IF;
END $$;

CREATE TABLE IF NOT EXISTS ledger (
    id           bigint PRIMARY KEY,
    at           timestamptz NOT NULL,
    model        text NOT NULL,
    alias        text NOT NULL CHECK (alias IN ('candidate', 'staging', 'champion')),
    kind         text NOT NULL,
    from_version text,
    to_version   text,
    actor        text NOT NULL,
    reason       text NOT NULL,
    evidence     jsonb NOT NULL,
    previous     text NOT NULL,
    hash         text NOT NULL UNIQUE
);
CREATE INDEX IF NOT EXISTS ledger_of_a_model ON ledger (model, alias, id);

CREATE OR REPLACE FUNCTION ledger_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the ledger is append-only: % is refused', TG_OP USING ERRCODE = 'insufficient_privilege';
END $$;
CREATE OR REPLACE TRIGGER ledger_append_only BEFORE UPDATE OR DELETE ON ledger
    FOR EACH ROW EXECUTE FUNCTION ledger_is_append_only();
CREATE OR REPLACE TRIGGER ledger_never_truncated BEFORE TRUNCATE ON ledger
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_is_append_only();

-- What is about to happen, written before MLflow is asked, so that whoever comes after a crash can finish it. A row that is
-- done names its line in the ledger; `told` says that the event was sent.
CREATE TABLE IF NOT EXISTS alias_journal (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    model        text NOT NULL,
    alias        text NOT NULL,
    kind         text NOT NULL,
    from_version text,
    to_version   text,
    actor        text NOT NULL,
    reason       text NOT NULL,
    evidence     jsonb NOT NULL,
    opened_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    deadline     timestamptz NOT NULL,
    state        text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'done', 'abandoned')),
    ledger_id    bigint,
    ledger_hash  text,
    told         boolean NOT NULL DEFAULT false
);
CREATE INDEX IF NOT EXISTS alias_journal_open ON alias_journal (model) WHERE state = 'open';
CREATE INDEX IF NOT EXISTS alias_journal_untold ON alias_journal (model) WHERE state = 'done' AND NOT told;
CREATE UNIQUE INDEX IF NOT EXISTS alias_journal_of_a_line ON alias_journal (ledger_id);

-- Deliveries of MLflow's webhook that were acted upon; one that comes again is a replay.
CREATE TABLE IF NOT EXISTS webhook_delivery (
    id text PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Who works on a stage. A holder that lives moves `expires` on; one whose lease ran out lost it, and its run is Crashed.
CREATE TABLE IF NOT EXISTS stage_lease (
    run_id      text PRIMARY KEY,
    holder      uuid NOT NULL,
    model       text NOT NULL,
    stage       text NOT NULL,
    flow_run_id text,
    expires     timestamptz NOT NULL
);

-- Digests of watched datasets; each starts a release at most once. The first of a source is its baseline.
CREATE TABLE IF NOT EXISTS dataset_seen (
    model  text NOT NULL,
    source text NOT NULL,
    digest text NOT NULL,
    at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (model, source, digest)
);
