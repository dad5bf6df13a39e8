-- Hybrid search in one statement. Reciprocal rank fusion: a rank r in either list is worth 1 / (60 + r) (Cormack,
-- Clarke and Buettcher, SIGIR 2009). A passage's words count by how rare they are (inverse document frequency, as BM25 has
-- it: Robertson and Zaragoza 2009); ts_rank knows nothing of rarity. Any of the question's words is enough to match,
-- because a question rarely shares all of them with the passage that answers it.
-- Diversity: copies of one passage, and more than %(per_source)s passages of one document, come after everything else.
with nearest as materialized (
    select id, row_number() over (order by distance, id) as rank
    from (
        select id, embedding <=> %(vector)s::{vector} as distance from {table}
        where {filter} and %(by_vector)s
        order by embedding <=> %(vector)s::{vector} limit %(candidates)s
    ) as found
), asked as materialized (
    select lexeme, ('''' || replace(replace(lexeme, '\', '\\'), '''', '''''') || '''')::tsquery as word
    from unnest(to_tsvector('english', %(text)s)) where %(by_text)s
), holding as materialized (
    select lexeme, found.id
    from asked, lateral (select id from {table} as chunk where chunk.words @@ word and {filter} offset 0) as found
), weighed as materialized (
    select lexeme, ln(1 + (greatest(total, number) - number + 0.5) / (number + 0.5)) as weight
    from (select lexeme, count(*) as number from holding group by lexeme) as counted,
         (select reltuples::float8 as total from pg_class where oid = {name}::regclass) as statistics
), matching as materialized (
    select id, row_number() over (order by weight desc, id) as rank
    from (
        select id, sum(weight) as weight from holding join weighed using (lexeme)
        group by id order by weight desc, id limit %(candidates)s
    ) as found
), fused as materialized (
    select id, nearest.rank as vector_rank, matching.rank as text_rank,
           coalesce(1.0 / (60 + nearest.rank), 0)::float8 + coalesce(1.0 / (60 + matching.rank), 0)::float8 as score
    from nearest full join matching using (id)
), spread as (
    select chunk.*, fused.score, vector_rank, text_rank, 1 - (embedding <=> %(vector)s::{vector}) as similarity,
           row_number() over (partition by digest order by score desc, chunk.id) as copy,
           row_number() over (partition by source order by score desc, chunk.id) as nth
    from fused, lateral (select * from {table} as one where one.id = fused.id offset 0) as chunk -- few: one look-up each
)
select id, source, kind, headings, ordinal, line, text, digest, similarity, score, vector_rank, text_rank
from spread
order by copy > 1, nth > %(per_source)s, score desc, similarity desc, id
limit %(k)s
