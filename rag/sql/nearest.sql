-- Vectors alone: the nearest passages, with the same diversity as the hybrid search. A statement of its own, because planning
-- the hybrid one costs more than this search.
with nearest as materialized (
    select id, source, kind, headings, ordinal, line, text, digest, embedding <=> %(vector)s::{vector} as distance
    from {table}
    where {filter}
    order by embedding <=> %(vector)s::{vector} limit %(candidates)s
), spread as (
    select *, row_number() over (order by distance, id) as rank,
           row_number() over (partition by digest order by distance, id) as copy,
           row_number() over (partition by source order by distance, id) as nth
    from nearest
)
select id, source, kind, headings, ordinal, line, text, digest,
       1 - distance as similarity, 1 - distance as score, rank as vector_rank, null::bigint as text_rank
from spread
order by copy > 1, nth > %(per_source)s, rank
limit %(k)s
