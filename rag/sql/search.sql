-- Hybrid search in one statement. Reciprocal rank fusion: a rank r in either list is worth 1 / (60 + r) (Cormack,
-- Clarke and Buettcher, SIGIR 2009). The question's words are joined by OR, because a question rarely shares all of
-- its words with the passage that answers it.
-- Diversity: copies of one passage, and more than %(per_source)s passages of one document, come after everything else.
with nearest as materialized (
    select id, row_number() over (order by distance, id) as rank
    from (
        select id, embedding <=> %(vector)s::{vector} as distance from {table}
        where {filter} and %(by_vector)s
        order by embedding <=> %(vector)s::{vector} limit %(candidates)s
    ) as found
), question as materialized (
    select replace(plainto_tsquery('english', %(text)s)::text, ' & ', ' | ')::tsquery as words
), matching as materialized (
    select id, row_number() over (order by weight desc, id) as rank
    from (
        select id, ts_rank_cd(chunk.words, question.words, 1) as weight
        from {table} as chunk, question
        where chunk.words @@ question.words and {filter} and %(by_text)s
        order by weight desc, id limit %(candidates)s
    ) as found
), fused as (
    select id, nearest.rank as vector_rank, matching.rank as text_rank,
           coalesce(1.0 / (60 + nearest.rank), 0)::float8 + coalesce(1.0 / (60 + matching.rank), 0)::float8 as score
    from nearest full join matching using (id)
), spread as (
    select chunk.*, score, vector_rank, text_rank, 1 - (embedding <=> %(vector)s::{vector}) as similarity,
           row_number() over (partition by digest order by score desc, id) as copy,
           row_number() over (partition by source order by score desc, id) as nth
    from fused join {table} as chunk using (id)
)
select id, source, kind, headings, ordinal, line, text, digest, similarity, score, vector_rank, text_rank
from spread
order by copy > 1, nth > %(per_source)s, score desc, similarity desc, id
limit %(k)s
