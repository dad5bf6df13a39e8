"""Chunks: within the limit, nothing lost, code whole, identities that follow the content."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.chunk import Chunk, Document, Limits, chunk_document
from tests.fix_rag import count_words

word = st.text("abcdefgh", min_size=1, max_size=8)
sentence = st.lists(word, min_size=1, max_size=12).map(lambda words: " ".join(words).capitalize() + ".")
paragraph = st.lists(sentence, min_size=1, max_size=6).map(" ".join)
heading = st.builds(lambda level, title: "#" * level + " " + title, st.integers(1, 4), sentence)
bullets = st.lists(paragraph, min_size=1, max_size=5).map(lambda items: "\n".join(f"- {item}" for item in items))
code_lines = st.lists(st.lists(word, max_size=6).map(" ".join), min_size=1, max_size=12)
fence = code_lines.map(lambda lines: "```\n" + "\n".join(lines) + "\n```")
quote = paragraph.map(lambda text: f"> {text}")
blocks = st.lists(st.one_of(heading, paragraph, bullets, fence, quote), max_size=10)
markdown = st.one_of(blocks.map("\n\n".join), blocks.map("\n".join), st.text(max_size=400))
limits = st.tuples(st.integers(16, 80), st.integers(0, 8))


def chunked(text: str, max_tokens: int = 40, overlap_tokens: int = 0) -> tuple[Chunk, ...]:
    return chunk_document(Document("doc.md", text), count_words, Limits(max_tokens, overlap_tokens))


def solid(text: str) -> str:
    return "".join(text.split())


@given(markdown, limits)
def test_every_passage_is_within_the_limit(text: str, limit: tuple[int, int]) -> None:
    assert all(count_words(chunk.passage) <= limit[0] for chunk in chunked(text, *limit))


@given(st.text(min_size=200, max_size=600))
def test_a_tokenizer_that_splits_words_changes_nothing_about_the_limit(text: str) -> None:
    def count(passage: str) -> int:
        return 2 + len(passage.encode()) // 3

    chunks = chunk_document(Document("doc.md", text), count, Limits(16, 0))
    assert all(count(chunk.passage) <= 16 for chunk in chunks)
    assert solid("".join(chunk.text for chunk in chunks)) == solid(text)


@given(markdown, st.integers(16, 80))
def test_without_overlap_the_chunks_are_the_document(text: str, max_tokens: int) -> None:
    assert solid("".join(chunk.text for chunk in chunked(text, max_tokens))) == solid(text)


@given(markdown, limits)
def test_with_overlap_each_chunk_goes_on_where_the_one_before_ended(text: str, limit: tuple[int, int]) -> None:
    whole, ends = solid(text), {0}
    for chunk in chunked(text, *limit):
        part = solid(chunk.text)
        starts = {end - shared for end in ends for shared in range(min(end, len(part) - 1) + 1)}
        ends = {start + len(part) for start in starts if whole.startswith(part, start)}
        assert ends, f"{chunk.text!r} is not the next part of the document"
    assert len(whole) in ends


@given(blocks, limits)
def test_a_code_fence_that_fits_is_whole(parts: list[str], limit: tuple[int, int]) -> None:
    chunks = chunked("\n\n".join(parts), *limit)
    for part in parts:
        if part.startswith("```") and count_words(part) <= limit[0] // 2:  # the headings take the other half at most
            assert any(solid(part) in solid(chunk.text) for chunk in chunks)


@pytest.mark.parametrize("sentences", range(1, 12))
def test_a_code_fence_inside_a_list_item_is_whole(sentences: int) -> None:
    code = "  ```sh\n" + "".join(f"  make step{i}\n" for i in range(12)) + "  ```\n"
    text = "- " + "Some words before it. " * sentences + "\n\n" + code + "- " + "Another item altogether. " * 8
    assert any(code.strip() in chunk.text for chunk in chunked(text, 40))


def test_a_code_fence_over_the_limit_is_cut_between_lines_and_never_repeated() -> None:
    lines = [f"command number {i}" for i in range(30)]
    chunks = chunked("```\n" + "\n".join(lines) + "\n```", 20, 8)
    found = [line for chunk in chunks for line in chunk.text.splitlines() if "`" not in line]
    assert len(chunks) > 1 and found == lines


def test_prose_over_the_limit_is_cut_between_sentences_and_overlaps_by_whole_sentences() -> None:
    sentences = [f"Sentence {i} has six words." for i in range(10)]
    first, second = chunked(" ".join(sentences), 20, 7)[:2]
    assert first.text == " ".join(sentences[:3])
    assert second.text == " ".join(sentences[2:5])


def test_headings_are_the_path_to_the_section() -> None:
    text = "Before.\n\n# Gate\n\nOne.\n\n## Margin\n\nTwo.\n\nTitle\n=====\n\n### `deep`\n\nThree."
    found = [(chunk.headings, chunk.text.splitlines()[-1]) for chunk in chunked(text)]
    assert found == [
        ((), "Before."),
        (("Gate",), "One."),
        (("Gate", "Margin"), "Two."),
        (("Title", "`deep`"), "Three."),
    ]


def test_a_title_without_text_goes_with_the_section_after_it() -> None:
    (chunk,) = chunked("# Gate\n\n## Margin\n\nTwo points.")
    assert chunk.text == "# Gate\n\n## Margin\n\nTwo points."
    assert chunk.passage.startswith("Gate > Margin\n\n")


def test_outer_headings_go_first_when_the_path_is_too_long() -> None:
    (chunk,) = chunked("# " + "outer " * 30 + "\n\n## inner\n\nText.", 60)
    assert chunk.headings == ("inner",)


@given(markdown, limits)
def test_ids_are_stable_unique_and_ordinals_count_up(text: str, limit: tuple[int, int]) -> None:
    chunks = chunked(text, *limit)
    assert chunks == chunked(text, *limit)
    assert len({chunk.id for chunk in chunks}) == len(chunks)
    assert [chunk.ordinal for chunk in chunks] == list(range(len(chunks)))
    assert all(re.fullmatch("[0-9a-f]{64}", chunk.id) for chunk in chunks)


@given(st.lists(paragraph, min_size=1, max_size=6), st.data())
def test_an_edit_changes_the_ids_of_its_own_section_only(texts: list[str], data: st.DataObject) -> None:
    edited = data.draw(st.integers(0, len(texts) - 1))
    changed = [*texts[:edited], "Quite new.", *texts[edited + 1 :]]

    def ids(bodies: list[str]) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for chunk in chunked("\n\n".join(f"# S{i}\n\n{body}" for i, body in enumerate(bodies)), 30, 5):
            found.setdefault(chunk.headings[0], set()).add(chunk.id)
        return found

    before, after = ids(texts), ids(changed)
    assert {section for section in before if before[section] != after[section]} == {f"S{edited}"}


def test_the_same_text_in_two_documents_has_two_ids_and_one_digest() -> None:
    (one,), (two,) = (chunk_document(Document(source, "Same."), count_words, Limits()) for source in ("a.md", "b.md"))
    assert one.id != two.id and one.digest == two.digest


@pytest.mark.parametrize("limit", [(15, 0), (40, 21), (40, -1)])
def test_limits_without_room_are_refused(limit: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="max_tokens must be at least 16"):
        chunked("Text.", *limit)


def test_a_chunk_says_on_which_line_it_begins() -> None:
    text = "# Gate\n\nOne two three four five six seven.\n\n- item one is here\n- item two is here\n\n## Margin\n\nTwo."
    for chunk in chunked(text, 16):
        assert text.splitlines()[chunk.line - 1].startswith(chunk.text.splitlines()[0])
    assert [chunk.line for chunk in chunked(text, 16)] == [1, 5, 8]


def test_plain_text_has_paragraphs_and_no_headings() -> None:
    (chunk,) = chunk_document(Document("a.txt", "# not a heading\n\n    not code", "text"), count_words, Limits())
    assert (chunk.headings, chunk.text) == ((), "# not a heading\n\n    not code")


def test_source_code_is_cut_at_its_definitions_and_between_lines() -> None:
    code = (
        '"""Doc."""\n\nimport os\n\ndef first(a: int) -> int:\n    return a\n\n\n'
        "class Second:\n    x = 1\n\n    def inner(self):\n        pass\n"
    )
    found = chunk_document(Document("a.py", code, "code"), count_words, Limits(40, 0))
    assert [(chunk.headings, chunk.line) for chunk in found] == [
        ((), 1),
        (("def first(a: int) -> int",), 5),
        (("class Second",), 9),
    ]
    long = "def f():\n" + "".join(f"    call_{i}(one, two)\n" for i in range(20))
    parts = chunk_document(Document("a.py", long, "code"), count_words, Limits(40, 10))
    assert len(parts) > 1 and "".join(f"{part.text}\n" for part in parts) == long


@pytest.mark.timeout(20)
def test_a_word_without_end_is_cut_though_a_tokenizer_calls_it_one_token() -> None:
    chunks = chunk_document(Document("a.txt", "x" * 50_000, "text"), lambda text: len(text.split()), Limits(16, 0))
    assert "".join(chunk.text for chunk in chunks) == "x" * 50_000
    assert max(len(chunk.text) for chunk in chunks) <= 16 * 16
