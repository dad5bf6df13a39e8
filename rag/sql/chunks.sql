-- The chunks of one generation; {table}, {vector} and {dimension} are filled in by rag/generation.py.
create table if not exists {table} (
    id        text primary key,           -- sha256 of source, content and occurrence
    tenant    text not null,
    source    text not null,
    kind      text not null,              -- markdown, html, pdf, text or code
    headings  text[] not null,            -- outermost first
    ordinal   integer not null,           -- place within the document, from 0
    line      integer not null,           -- first line within the document's text, from 1
    text      text not null check (text <> ''),
    digest    text not null,              -- sha256 of what was embedded
    embedding {vector}({dimension}) not null,
    words     tsvector not null generated always as (rag_words(headings, text)) stored
);
-- Not forced on the owner, because COPY cannot write through a policy; searches run as rag_reader, which owns nothing.
alter table {table} enable row level security;
drop policy if exists own on {table};
create policy own on {table} using (tenant = current_setting('rag.tenant', true));
grant select on {table} to rag_reader
