-- Under row-level security an index serves a condition only where its operator is known to leak nothing, else every row
-- is read. Matching words raises no error and tells nothing but yes or no. Only a superuser may say so; without it
-- searches are right all the same, and slow in large indexes.
do $$
begin
    alter function pg_catalog.ts_match_vq(tsvector, tsquery) leakproof;
exception when insufficient_privilege then
    raise notice 'rag: word search reads every row; let a superuser run: alter function ts_match_vq(tsvector, tsquery) leakproof';
end $$;
