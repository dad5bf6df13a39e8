-- Hybrid search in one statement: the nearest vectors and the best matches of words are the candidates, and each of them, from
-- whichever list, is scored by both: %(vector_weight)s of its cosine and %(text_weight)s of the share that its words have in the weight of all
-- words asked. Both lie on scales of their own that no other candidate moves (Bruch, Gai and Ingber, TOIS 2023: such a sum is
-- ahead of fusing ranks). A word counts by how rare it is (inverse document frequency, as BM25 has it: Robertson and Zaragoza
-- 2009); ts_rank knows nothing of rarity. Any of the question's words is enough to match, because a question rarely shares
-- all of them with the passage that answers it.
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
    select lexeme, word, ln(1 + (greatest(total, number) - number + 0.5) / (number + 0.5)) as weight
    from asked left join (select lexeme, count(*) as found from holding group by lexeme) as counted using (lexeme),
         lateral (select coalesce(found, 0) as number) as numbered,
         (select reltuples::float8 as total from pg_class where oid = {name}::regclass) as statistics
), matching as materialized (
    select id, row_number() over (order by weight desc, id) as rank
    from (
        select id, sum(weight) as weight from holding join weighed using (lexeme)
        group by id order by weight desc, id limit %(candidates)s
    ) as found
), fused as materialized (
    select id, nearest.rank as vector_rank, matching.rank as text_rank from nearest full join matching using (id)
), scored as materialized (
    select chunk.*, vector_rank, text_rank, %(vector_weight)s * similarity + %(text_weight)s * share as score
    from fused, -- few: one look-up each
         lateral (select *, 1 - (embedding <=> %(vector)s::{vector}) as similarity from {table} as one where one.id = fused.id offset 0) as chunk,
         lateral (select coalesce(sum(weight) filter (where chunk.words @@ word) / sum(weight), 0) as share from weighed) as shared
), spread as (
    select *, row_number() over (partition by digest order by score desc, id) as copy,
           row_number() over (partition by source order by score desc, id) as nth
    from scored
)
select id, source, kind, headings, ordinal, line, text, digest, similarity, score, vector_rank, text_rank
from spread
order by copy > 1, nth > %(per_source)s, score desc, similarity desc, id
limit %(k)s
