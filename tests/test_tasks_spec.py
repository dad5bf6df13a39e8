"""release.yaml: a fault of a key, a value or a file is named with file, line and what is allowed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tasks.spec import SpecInvalid, load_release
from tests.fix_spec import SMALL, fill, load, refusal

SUITE = Path(__file__).parent.parent / "evals" / "ticket_router"


def test_the_smallest_spec_has_defaults_and_absolute_paths(tmp_path: Path) -> None:
    spec = load(fill(tmp_path), SMALL)
    assert (spec.training.r, spec.gate.rule, spec.delivery.steps, spec.sample) == (
        8,
        "non_inferior",
        (10, 50, 100),
        None,
    )
    assert spec.dataset.train == (tmp_path / "data" / "train.jsonl").resolve()
    assert spec.gate.prompt == (tmp_path / "prompt.yaml").resolve()


def test_a_relative_path_is_relative_to_the_spec_and_not_to_the_caller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(fill(tmp_path), SMALL)
    monkeypatch.chdir(tmp_path.parent)
    spec = load_release(Path(tmp_path.name) / "release.yaml")
    assert spec.gate.task == (tmp_path / "task.yaml").resolve()


@pytest.mark.parametrize(
    "change", [lambda t: "\ufeff" + t, lambda t: t.replace("\n", "\r\n"), lambda t: "%YAML 1.1\n---\n" + t]
)
def test_editors_ways_of_saving_are_read(tmp_path: Path, change: Any) -> None:
    assert load(fill(tmp_path), change(SMALL)).name == "a-model"


@pytest.mark.parametrize("name", ["release.yaml", "release-mislabelled.yaml"])
def test_the_samples_specs_load(name: str) -> None:
    spec = load_release(SUITE / name)
    assert spec.name == "ticket-router"
    assert spec.dataset.train.is_relative_to(SUITE)


# --- faults of keys


@pytest.mark.parametrize(
    ("added", "line", "words"),
    [
        ("trainig: {}", 9, "trainig: unknown key; did you mean training? Allowed here: name, base_model, dataset,"),
        ("training:\n  r: 8\n  lora_alhpa: 3", 11, "training.lora_alhpa: unknown key; did you mean lora_alpha? Allowed here: r,"),
        ("wholly_else: 1", 9, "wholly_else: unknown key. Allowed here: name, base_model"),
        ("1: 2", 9, "1: unknown key. Allowed here: name,"),
        ("sample: {documents: [task.yaml], questions: [a], k: 3}", 9, "sample.k: unknown key. Allowed here: documents, questions"),
        ("training: {<<: {r: 4}}", 9, "training.<<: unknown key. Allowed here: r,"),
    ],
)  # fmt: skip
def test_an_unknown_key_is_named_with_a_near_one_and_the_allowed_ones(
    tmp_path: Path, added: str, line: int, words: str
) -> None:
    [said] = refusal(fill(tmp_path), f"{SMALL}{added}\n")
    assert said.startswith(f"release.yaml:{line}: {words}")


@pytest.mark.parametrize(
    ("without", "said"),
    [
        ("name: a-model\n", "release.yaml:1: name: missing. Name of the model"),
        ("  task: task.yaml\n", "release.yaml:6: gate.task: missing. lm-eval task YAML."),
        ("  train: data/train.jsonl\n", "release.yaml:3: dataset.train: missing. Training items"),
    ],
)
def test_a_missing_key_is_named_where_it_should_stand(tmp_path: Path, without: str, said: str) -> None:
    [line] = refusal(fill(tmp_path), SMALL.replace(without, ""))
    assert line.startswith(said)


def test_a_key_that_stands_twice_is_named(tmp_path: Path) -> None:
    assert refusal(fill(tmp_path), f"{SMALL}name: b-model\n") == [
        "release.yaml:9: the key 'name' stands already in line 1"
    ]
    inner = f"{SMALL}training:\n  r: 8\n  seed: 1\n  r: 9\n"
    assert refusal(tmp_path, inner) == ["release.yaml:12: the key 'r' stands already in line 10"]


# --- faults of values


@pytest.mark.parametrize(
    ("added", "line", "words"),
    [
        ("training:\n  r: many", 10, "training.r: Input should be a valid integer (found 'many')"),
        ("training: {r: '8'}", 9, "training.r: Input should be a valid integer (found '8')"),
        ("training: {r: true}", 9, "training.r: Input should be a valid integer (found True)"),
        ("training: {r: 8.5}", 9, "training.r: Input should be a valid integer (found 8.5)"),
        ("training: {r: }", 9, "training.r: Input should be a valid integer (found None)"),
        ("training: 3", 9, "training: must be a mapping with keys of r, lora_alpha, target_modules"),
        ("training:", 9, "training: must be a mapping with keys of r, lora_alpha, target_modules"),
        ("delivery: {steps: 100}", 9, "delivery.steps: Input should be a valid array (found 100)"),
        ("sample: {documents: task.yaml, questions: [a]}", 9, "sample.documents: Input should be a valid array"),
        ("training: {seed: 2001-01-01}", 9, "training.seed: Input should be a valid integer (found '2001-01-01')"),
    ],
)  # fmt: skip
def test_a_wrong_type_is_named(tmp_path: Path, added: str, line: int, words: str) -> None:
    [said] = refusal(fill(tmp_path), f"{SMALL}{added}\n")
    assert said.startswith(f"release.yaml:{line}: {words}")


@pytest.mark.parametrize(
    ("added", "words"),
    [
        ("training: {r: 257}", "training.r: Input should be less than or equal to 256 (found 257)"),
        ("training: {r: 0}", "training.r: Input should be greater than or equal to 1 (found 0)"),
        ("training: {learning_rate: 0}", "training.learning_rate: Input should be greater than 0 (found 0)"),
        ("training: {learning_rate: .nan}", "training.learning_rate: Input should be less than or equal to 0.1 (found nan)"),
        ("training: {seed: 4294967296}", "training.seed: Input should be less than or equal to 4294967295 (found 4294967296)"),
        ("training: {target_modules: []}", "training.target_modules: Tuple should have at least 1 item"),
        ("serving: {max_lora_rank: 12}", "serving.max_lora_rank: Input should be 8, 16, 32, 64, 128 or 256 (found 12)"),
        ("serving: {gpu: nvidia-l5}", "serving.gpu: must be one of nvidia-a10, nvidia-a100-40gb, "),
        ("delivery: {target: moon}", "delivery.target: Input should be 'local', 'gitops' or 'kubernetes' (found 'moon')"),
        ("delivery: {max_error_rate: .nan}", "delivery.max_error_rate: Input should be less than or equal to 1 (found nan)"),
        ("delivery: {max_first_token_ratio: .inf}", "delivery.max_first_token_ratio: Input should be less than or equal to 100"),
    ],
)  # fmt: skip
def test_a_value_out_of_bounds_is_named_with_the_bound(tmp_path: Path, added: str, words: str) -> None:
    [said] = refusal(fill(tmp_path), f"{SMALL}{added}\n")
    assert said.startswith(f"release.yaml:9: {words}")


@pytest.mark.parametrize(
    ("added", "words"),
    [
        ("rule: better", "gate.rule: Input should be 'superior' or 'non_inferior' (found 'better')"),
        ("block: -1", "gate.block: Input should be greater than or equal to 0 (found -1)"),
        ("slices: [{column: team, bound: 0.1}]", "gate.slices.0.value: missing. The items' value in it."),
        ("slices: [{column: team, value: a, bound: 0}]", "gate.slices.0.bound: must be above 0 for non_inferior (found 0)"),
        ("slices: [{column: t, value: a, bound: 0.1, k: 1}]", "gate.slices.0.k: unknown key. Allowed here: column, value,"),
        ("baseline: last", "gate.baseline: Input should be 'champion' or 'base' (found 'last')"),
        ("min_items: 1", "gate.min_items: Input should be greater than or equal to 2 (found 1)"),
        ("margin: 0", "gate.margin: must be above 0 for non_inferior"),
        ("margin: .nan", "gate.margin: Input should be less than 1 (found nan)"),
    ],
)  # fmt: skip
def test_a_gate_that_could_not_judge_is_refused_before_training(tmp_path: Path, added: str, words: str) -> None:
    [said] = refusal(fill(tmp_path), f"{SMALL}  {added}\n")
    assert said.startswith(f"release.yaml:9: {words}")


def test_a_margin_of_0_is_a_rule_for_superior(tmp_path: Path) -> None:
    assert load(fill(tmp_path), f"{SMALL}  rule: superior\n  margin: 0\n").gate.margin == 0


@pytest.mark.parametrize("name", ["A-Model", "9-lives", "a", "a_model", "a" * 41, "a model", '"a-model\\n"', ""])
def test_a_name_that_no_tool_would_take_is_refused(tmp_path: Path, name: str) -> None:
    [said] = refusal(fill(tmp_path), SMALL.replace("a-model", name))
    assert said.startswith("release.yaml:1: name: ")


@pytest.mark.parametrize("steps", ["[10, 50]", "[]", "[50, 10, 100]", "[10, 10, 100]", "[100, 10]"])
def test_steps_must_rise_and_end_at_100(tmp_path: Path, steps: str) -> None:
    [said] = refusal(fill(tmp_path), f"{SMALL}delivery:\n  steps: {steps}\n")
    assert said.startswith("release.yaml:10: delivery.steps: must rise and end at 100, e.g. [10, 50, 100] (found [")


def test_a_wrong_step_is_named_with_its_own_line(tmp_path: Path) -> None:
    text = f"{SMALL}delivery:\n  steps:\n    - 10\n    - 500\n"
    [said] = refusal(fill(tmp_path), text)
    assert said == "release.yaml:12: delivery.steps.1: Input should be less than or equal to 100 (found 500)"


def test_a_rank_above_the_engines_is_named_where_it_stands(tmp_path: Path) -> None:
    text = f"{SMALL}serving:\n  max_lora_rank: 16\ntraining:\n  seed: 1\n  r: 32\n"
    [said] = refusal(fill(tmp_path), text)
    assert said == "release.yaml:13: training.r is 32, but serving.max_lora_rank is 16; raise the latter or lower r"


def test_every_fault_is_told_at_once(tmp_path: Path) -> None:
    text = f"{SMALL}training:\n  r: 0\n  lr: 1\nsample: {{documents: [], questions: [2]}}\n"
    places = [line.split(": ")[:2] for line in refusal(fill(tmp_path), text)]
    assert sorted(places) == [
        ["release.yaml:10", "training.r"],
        ["release.yaml:11", "training.lr"],
        ["release.yaml:12", "sample.documents"],
        ["release.yaml:12", "sample.questions.0"],
    ]


# --- faults of files


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("data/train.jsonl", "data/none.jsonl", "release.yaml:4: dataset.train: data/none.jsonl does not exist"),
        ("data/test.jsonl", "data", "release.yaml:5: dataset.test: data is a folder, required a file"),
        ("task.yaml", "none.yaml", "release.yaml:7: gate.task: none.yaml does not exist"),
        ("task.yaml", '"a\\0b"', "release.yaml:7: gate.task: a\0b does not exist"),
        ("task.yaml", "x" * 300, f"release.yaml:7: gate.task: {'x' * 300} cannot be read: File name too long"),
    ],
)  # fmt: skip
def test_a_file_that_a_spec_names_and_that_is_not_there(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert refusal(fill(tmp_path), SMALL.replace(old, new)) == [said]


def test_a_document_may_be_a_folder_and_must_exist(tmp_path: Path) -> None:
    sample = "sample:\n  questions: [a]\n  documents:\n    - data\n"
    assert load(fill(tmp_path), f"{SMALL}{sample}").sample is not None
    assert refusal(tmp_path, f"{SMALL}{sample}    - none.md\n") == [
        "release.yaml:13: sample.documents.1: none.md does not exist"
    ]


def test_a_spec_that_is_not_there_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(SpecInvalid, match=r"none\.yaml: no such file; .* `liftlock init DIR`"):
        load_release(tmp_path / "none.yaml")
    with pytest.raises(SpecInvalid, match=r": a folder; give the path of a release\.yaml"):
        load_release(tmp_path)


@pytest.mark.parametrize("text", ["", "# only a comment\n", "[]", "3", "null", "just words"])
def test_a_file_that_is_no_mapping_is_told_the_keys(tmp_path: Path, text: str) -> None:
    [said] = refusal(tmp_path, text)
    assert said.startswith("release.yaml:1: a release is a mapping with the keys name, base_model, dataset, ")


@pytest.mark.parametrize("text", [b"\xff\xfe\x00", SMALL.encode("utf-16"), "name: é".encode("latin-1")])
def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path, text: bytes) -> None:
    assert refusal(tmp_path, text) == ["release.yaml: not UTF-8 text; save it as UTF-8"]


@pytest.mark.parametrize(
    ("added", "line"),
    [
        ("a: b: c", 9),
        ("training: [", 10),
        ("\ttraining: {}", 9),
        ('training: "', 10),
        ("x: 1\n- y", 10),
        ("a: x\0y", 9),
    ],
)
def test_bad_yaml_is_named_with_its_line(tmp_path: Path, added: str, line: int) -> None:
    [said] = refusal(fill(tmp_path), f"{SMALL}{added}\n")
    assert said.startswith(f"release.yaml:{line}: ")
    assert "YAML" in said


def test_the_default_rollout_misses_a_fault_of_five_percent_at_most_once_in_twenty(tmp_path: Path) -> None:
    fill(tmp_path)
    delivery = load(tmp_path, SMALL).delivery
    assert delivery.max_error_rate == 0  # one failure undoes
    assert 0.95 ** (delivery.min_requests * len(delivery.steps)) <= 0.05
