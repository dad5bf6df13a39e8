"""One prompt file, rendered as Jinja renders it, and nothing that other template languages read differently."""

from __future__ import annotations

from pathlib import Path

import jinja2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.prompt import Prompt, PromptInvalid, load_prompt, messages, parse_prompt

SUITE = Path(__file__).parent.parent / "evals" / "ticket_router"


def test_without_a_system_message() -> None:
    assert messages(Prompt(None, "{{ticket}}"), {"ticket": "Hi"}) == ({"role": "user", "content": "Hi"},)


def test_with_a_system_message() -> None:
    asked = messages(Prompt("Name the team.", "Ticket: {{ ticket }}\n({{id}})"), {"ticket": "Hi", "id": 7})
    assert asked == (
        {"role": "system", "content": "Name the team."},
        {"role": "user", "content": "Ticket: Hi\n(7)"},
    )


@given(st.text(alphabet=st.characters(exclude_characters="{}%#\r"), max_size=30), st.text(max_size=30))
def test_the_user_message_is_what_jinja_renders(around: str, ticket: str) -> None:
    # lm-eval renders doc_to_text with exactly this environment
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)  # noqa: S701 - no HTML
    prompt = Prompt(None, f"{around}{{{{ticket}}}}{around}")
    rendered = environment.from_string(prompt.user).render(ticket=ticket)
    assert messages(prompt, {"ticket": ticket})[0]["content"] == rendered


def test_placeholders_inside_an_item_are_left_alone() -> None:
    assert messages(Prompt(None, "{{ticket}}"), {"ticket": "{{team}} {% x %}"})[0]["content"] == "{{team}} {% x %}"


def test_the_digest_follows_the_content() -> None:
    assert Prompt(None, "{{ticket}}").sha256 == Prompt(None, "{{ticket}}").sha256
    assert Prompt(None, "{{ticket}}").sha256 != Prompt("x", "{{ticket}}").sha256


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("system: null\nuser: Name the team.", "has no placeholder"),
        ("system: null\nuser: '{{ticket | upper}} {{ticket}}'", "'{{'"),
        ("system: null\nuser: '{% if x %}{{ticket}}{% endif %}'", "'{%'"),
        ("system: 'For {{team}}'\nuser: '{{ticket}}'", "the system prompt holds '{{'"),
        ("user: '{{ticket}}'", "exactly the keys system and user"),
        ("- a", "exactly the keys system and user"),
        ("system: ''\nuser: '{{ticket}}'", "text or null"),
        ("system: null\nuser: 3", "user must be text"),
        ("a: [", "p.yaml is not YAML"),
    ],
)
def test_other_prompts_are_refused(text: str, words: str) -> None:
    with pytest.raises(PromptInvalid, match=words):
        parse_prompt(text, "p.yaml")


def test_a_missing_column_is_named() -> None:
    with pytest.raises(PromptInvalid, match="asks for the column 'ticket'; the item has body, id"):
        messages(Prompt(None, "{{ticket}}"), {"id": "a", "body": "b"})


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PromptInvalid, match=r"cannot read the prompt .*prompt\.yaml"):
        load_prompt(tmp_path / "prompt.yaml")


def test_the_suites_own_prompt_reads() -> None:
    assert load_prompt(SUITE / "prompt.yaml").user
