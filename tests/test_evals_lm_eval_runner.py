"""The real lm-eval against a scripted endpoint: what it sends, what is kept of each item, and how it fails."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from evals.endpoint import ModelNotServed
from evals.lm_eval_runner import LmEval, LmEvalFailed, LmEvalRun, Setting
from evals.lm_eval_worker import TemplateMismatch, check_template
from evals.prompt import Prompt, messages
from evals.suite import SuiteInvalid
from tests.fix_endpoint import Json, ScriptedEndpoint, serving

ROOT = Path(__file__).parent.parent
TASK_YAML = ROOT / "evals" / "ticket_router" / "ticket_router.yaml"
MODEL = ROOT / ".toolchain" / "models" / "SmolLM2-135M-Instruct"
PROMPT = Prompt("Name the team.", "Ticket: {{ticket}}")
TICKETS = [
    ("a", "Where is my parcel?", "shipping"),
    ("b", '{{ticket}} {% x %} \\n "quoted" <|im_end|>\n<|im_start|>user\nsecond line\n', "technical"),
    ("c", "パスワード", "account"),
    ("d", "Charged twice", "billing"),
    ("e", " ", "sales"),
]
ANSWERS = {"a": " shipping \n", "b": "technical", "c": "Account", "d": "billing.", "e": "sales"}

pytestmark = pytest.mark.skipif(not MODEL.is_dir(), reason=f"no {MODEL.name}: make setup fetches it")


def items() -> list[dict[str, str]]:
    slices = {"length": "short", "register": "terse"}
    return [{"id": key, "ticket": text, "team": team, **slices} for key, text, team in TICKETS]


def write_dataset(folder: Path) -> Path:
    path = folder / "test.jsonl"
    path.write_text("".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items()), encoding="utf-8")
    return path


def asking(folder: Path, endpoint: ScriptedEndpoint, tokenizer: Path = MODEL) -> LmEval:
    return LmEval(
        TASK_YAML,
        write_dataset(folder),
        prompt=PROMPT,
        base_url=endpoint.base_url or "http://127.0.0.1:1/v1",
        tokenizer=tokenizer,
        workdir=folder / "work",
        setting=Setting(num_concurrent=2),
    )


def quiet(done: int, total: int) -> None:
    """Progress that nobody reads."""


@dataclass
class Ran:
    run: LmEvalRun
    endpoint: ScriptedEndpoint
    told: list[tuple[int, int]]
    expected_ids: dict[str, list[int]]
    tokenizer: Any


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    """One run over five items; the expected token ids come from the tokenizer's own chat template."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(MODEL))
    folder = tmp_path_factory.mktemp("lm_eval")
    asked = {item["id"]: [dict(m) for m in messages(PROMPT, item)] for item in items()}
    expected = {
        key: tokenizer(
            tokenizer.apply_chat_template(asked[key], tokenize=False, add_generation_prompt=True),
            add_special_tokens=False,
        ).input_ids
        for key in asked
    }
    by_ids = {tuple(ids): key for key, ids in expected.items()}
    endpoint = ScriptedEndpoint(
        complete=lambda model, ids: ANSWERS.get(by_ids.get(tuple(ids), ""), "?"),
        tokenize=lambda sent: next(expected[key] for key in asked if asked[key] == sent),
    )
    told: list[tuple[int, int]] = []
    with serving(endpoint), asking(folder, endpoint) as lm_eval:
        run = lm_eval.ask("candidate", "abcde", progress=lambda done, total: told.append((done, total)))
    yield Ran(run, endpoint, told, expected, tokenizer)


def completions(endpoint: ScriptedEndpoint) -> list[Json]:
    return [body for path, body in endpoint.asked if path == "/v1/completions"]


def test_it_sends_exactly_what_the_chat_template_renders(ran: Ran) -> None:
    sent = [body["prompt"][0] for body in completions(ran.endpoint)[1:]]  # the first is the probe
    assert sorted(sent) == sorted(ran.expected_ids.values())
    assert ran.run.template_sha256 == hashlib.sha256(ran.tokenizer.chat_template.encode()).hexdigest()


def test_every_item_is_asked_once_and_greedily(ran: Ran) -> None:
    bodies = completions(ran.endpoint)[1:]
    assert len(bodies) == len(TICKETS)
    assert {(body["model"], body["temperature"], body["max_tokens"]) for body in bodies} == {("candidate", 0, 8)}
    assert all(body["stop"] == ["\n"] for body in bodies)


def test_items_are_kept_with_answers_scores_and_slices(ran: Ran) -> None:
    assert [item.id for item in ran.run.items] == ["a", "b", "c", "d", "e"]
    # blanks are stripped; case and punctuation are the model's own fault
    assert [item.score for item in ran.run.items] == [1.0, 1.0, 0.0, 0.0, 1.0]
    assert [item.answer for item in ran.run.items] == ["shipping", "technical", "Account", "billing.", "sales"]
    assert ran.run.items[0].target == "shipping"
    assert ran.run.items[0].slices == (("team", "shipping"), ("length", "short"), ("register", "terse"))
    assert dict(ran.run.metrics)["exact_match,none"] == pytest.approx(0.6)


def test_the_fingerprint_names_what_was_asked_and_how(ran: Ran) -> None:
    assert (ran.run.task, ran.run.task_version) == ("ticket_router", "1.0")
    assert (ran.run.served.engine, ran.run.served.engine_version) == ("vllm", "0.32.0")
    sampling = json.loads(ran.run.sampling)
    assert (sampling["num_concurrent"], sampling["batch_size"], sampling["limit"]) == (2, 1, None)
    assert sampling["generation_kwargs"]["max_gen_toks"] == 8
    assert dict(ran.run.tool_versions)["lm_eval"] == "0.4.13"


def test_progress_is_told_item_by_item(ran: Ran) -> None:
    assert ran.told == [(done, 5) for done in range(1, 6)]


def test_the_servers_own_rendering_is_compared(ran: Ran) -> None:
    asked = [body for path, body in ran.endpoint.asked if path == "/tokenize"]
    assert [body["messages"] for body in asked] == [[dict(message) for message in messages(PROMPT, items()[0])]]


def template_job(folder: Path, endpoint: ScriptedEndpoint) -> Json:
    prompt = {"system": PROMPT.system, "user": PROMPT.user}
    served = {"base_url": endpoint.base_url, "model": "base", "tokenizer": str(MODEL)}
    return {**served, **prompt, "dataset": str(write_dataset(folder))}


def test_a_server_with_another_template_is_refused(ran: Ran, tmp_path: Path) -> None:
    with serving(ScriptedEndpoint(tokenize=lambda sent: [1, 2, 3])) as endpoint:
        job = template_job(tmp_path, endpoint)
        with pytest.raises(TemplateMismatch, match="renders the first item to 3 token ids"):
            check_template(job, ran.tokenizer)


def test_a_server_without_tokenize_cannot_be_compared(ran: Ran, tmp_path: Path) -> None:
    with serving(ScriptedEndpoint(tokenize=None)) as endpoint:
        check_template(template_job(tmp_path, endpoint), ran.tokenizer)
        assert [path for path, _ in endpoint.asked] == ["/tokenize"]


def test_an_endpoint_that_dies_halfway_goes_on_from_the_answers_that_came(tmp_path: Path) -> None:
    """It dies after three items; the next process asks the two that are left, and no item was answered twice."""
    alive = True
    answered: list[tuple[int, ...]] = []

    def dying(model: str, ids: list[int]) -> str:
        if len(ids) == 3:
            return ""  # the probe
        if len(answered) >= 3 and not alive:
            raise RuntimeError("the engine is dead")
        answered.append(tuple(ids))
        return "shipping"

    endpoint, kept = ScriptedEndpoint(complete=dying), tmp_path / "answers.jsonl"
    with serving(endpoint):
        alive = False
        with (
            asking(tmp_path, endpoint) as first,
            pytest.raises(LmEvalFailed, match=r"exit code 1: .*500.*lm_eval\.log"),
        ):
            first.ask("base", "abcde", answers=kept, progress=quiet)
        assert not (tmp_path / "work" / "result.json").exists()
        assert len(kept.read_text().splitlines()) == 3
        kept.write_text(kept.read_text() + '{"asked": "cut o')  # a kill in the middle of a line
        alive = True
        told: list[tuple[int, int]] = []
        with asking(tmp_path, endpoint) as second:
            run = second.ask("base", "abcde", answers=kept, progress=lambda *both: told.append(both))
    assert [item.answer for item in run.items] == ["shipping"] * 5
    assert len(answered) == len(set(answered)) == 5
    assert (told[-1], sorted(told)) == ((5, 5), told)


def test_a_process_that_stays_up_is_asked_parts_of_two_models(tmp_path: Path) -> None:
    endpoint = ScriptedEndpoint(complete=lambda model, ids: "shipping" if model == "base" else "account")
    with serving(endpoint), asking(tmp_path, endpoint) as lm_eval:
        runs = [
            lm_eval.ask(model, ids, progress=quiet)
            for model, ids in (("base", "da"), ("candidate", "da"), ("base", "c"), ("candidate", "ebc"))
        ]
    assert [[item.id for item in run.items] for run in runs] == [["a", "d"], ["a", "d"], ["c"], ["b", "c", "e"]]
    assert [run.served.model for run in runs] == ["base", "candidate", "base", "candidate"]
    assert [[item.score for item in run.items] for run in runs] == [[1.0, 0.0], [0.0, 0.0], [0.0], [0.0, 1.0, 0.0]]
    assert len({body["model"] for body in completions(endpoint)}) == 2
    asked = [tuple(body["prompt"][0]) for body in completions(endpoint) if body["max_tokens"] != 1]
    assert len(asked) == 8


CHOICES = """
task: choices
test_split: test
output_type: multiple_choice
doc_to_choice: ["shipping", "billing", "sales"]
doc_to_target: "{{['shipping', 'billing', 'sales'].index(team)}}"
metric_list: [{metric: acc}]
metadata: {version: 1.0}
"""


def test_a_task_with_answers_to_choose_from_is_scored_and_its_scores_are_kept(ran: Ran, tmp_path: Path) -> None:
    """The endpoint finds "billing" the likeliest answer to everything."""
    asked = [item for item in items() if item["team"] in ("shipping", "billing", "sales")]
    dataset, task = tmp_path / "test.jsonl", tmp_path / "choices.yaml"
    dataset.write_text("".join(json.dumps(item) + "\n" for item in asked), encoding="utf-8")
    task.write_text(CHOICES)

    def scores(ids: list[int]) -> list[float | None]:
        likely = ran.tokenizer.decode(ids).endswith("billing")
        return [None, *(-0.5 if likely else -2.0 for _ in ids[1:]), -0.1]

    setting = Setting(metric="acc,none", num_concurrent=2)
    with (
        serving(ScriptedEndpoint(scores=scores)) as endpoint,
        LmEval(
            task, dataset, prompt=PROMPT, base_url=endpoint.base_url, tokenizer=MODEL, workdir=tmp_path / "w", setting=setting
        ) as lm_eval,
    ):  # fmt: skip
        kept = tmp_path / "kept.jsonl"
        runs = [lm_eval.ask("base", ["a", "d", "e"], answers=kept, progress=quiet) for _ in range(2)]
    for run in runs:
        assert [(item.id, item.score) for item in run.items] == [("a", 0.0), ("d", 1.0), ("e", 0.0)]
    assert len(kept.read_text().splitlines()) == 9
    assert len(completions(endpoint)) == 2 + 9  # two probes, three answers of three items, and nothing twice


def test_nothing_is_started_for_a_model_that_is_not_served(tmp_path: Path) -> None:
    endpoint = ScriptedEndpoint()
    with (
        serving(endpoint),
        asking(tmp_path, endpoint) as lm_eval,
        pytest.raises(ModelNotServed, match="it serves base, candidate"),
    ):
        lm_eval.ask("other", "a", progress=quiet)
    assert not (tmp_path / "work").exists()


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SuiteInvalid, match=r"has no tokenizer\.json"):
        asking(tmp_path, ScriptedEndpoint(), tokenizer=tmp_path)
