-- Tables of the RAG sample. Safe to apply again: nothing that exists is changed.
create extension if not exists vector;

create table if not exists chunk (
    id             text primary key,   -- sha256 of source, content and occurrence
    source         text not null,      -- path of the document, as answers cite it
    headings       text[] not null,    -- outermost first
    ordinal        integer not null check (ordinal >= 0),
    text           text not null check (text <> ''),
    content_digest text not null,      -- sha256 of what was embedded
    embedding      vector(384) not null,
    words          tsvector not null generated always as (to_tsvector('english', text)) stored,
    -- deferred, because an edit near the top of a document moves every chunk below it
    constraint chunk_place unique (source, ordinal) deferrable initially deferred
);

create index if not exists chunk_words on chunk using gin (words);

-- Vectors of two models cannot be compared, so one row says whose vectors these are.
-- The HNSW index is made by rag/store.py after the first load: building it once is many times faster than row by row.
create table if not exists index_meta (
    only_row  boolean primary key default true check (only_row),
    embedder  text not null,
    revision  text not null,           -- sha256 of the embedder's weights
    dimension integer not null
);
