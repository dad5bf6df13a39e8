-- Generations, documents and row-level security. The tables of 0.1's sample go: documents make an index again.
drop table if exists chunk, index_meta;
create extension if not exists vector;

-- Searches run as this role. It owns nothing, so the policies below hold for it whoever the login is.
do $$
begin
    if not exists (select from pg_roles where rolname = 'rag_reader') then
        create role rag_reader nologin;
    end if;
exception when duplicate_object or unique_violation then null; -- another database of this server was quicker
end $$;
do $$
begin
    if not pg_has_role(current_user, 'rag_reader', 'set') then
        execute format('grant rag_reader to %I', current_user);
    end if;
end $$;

-- One embedder's index of one tenant's documents. Vectors of two models cannot be compared, so another model, or
-- another way to cut, is another generation: it is built beside the live one and then takes its place.
create table generation (
    id        integer generated always as identity primary key,
    tenant    text not null check (tenant <> ''),
    embedder  text not null,
    revision  text not null,              -- changes whenever the embedder's weights do
    dimension integer not null check (dimension > 0),
    precision text not null check (precision in ('vector', 'halfvec')),
    chunking  text not null,              -- how documents are cut: rag/chunk.py's version and limits
    state     text not null check (state in ('building', 'live')),
    made      timestamptz not null default now()
);
create unique index one_of_a_state on generation (tenant, state);

create table document (
    generation integer not null references generation on delete cascade,
    tenant     text not null,
    source     text not null,             -- the path that answers cite
    digest     text not null,             -- sha256 of the file's bytes
    primary key (generation, source)
);

-- A tenant sees its own rows, whatever a query asks for; without rag.tenant nobody sees any.
alter table generation enable row level security;
alter table generation force row level security;
create policy own on generation using (tenant = current_setting('rag.tenant', true));
alter table document enable row level security;
alter table document force row level security;
create policy own on document using (tenant = current_setting('rag.tenant', true));
grant usage on schema public to rag_reader;
grant select on generation, document to rag_reader;

-- array_to_string is not immutable for every type; of text it is, and a generated column asks for it.
create or replace function rag_words(headings text[], text text) returns tsvector
language sql immutable parallel safe as $$
    select setweight(to_tsvector('english', array_to_string(headings, ' ')), 'A') || to_tsvector('english', text)
$$;
