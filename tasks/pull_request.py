"""The gate on a change in Git: each suite that it touches is asked on both sides and judged. Effect (git, HTTP, files).

Trees of the two commits are exported into the state folder and removed afterwards; results are kept by what was asked of
which bytes, so that a side whose fingerprint holds is never asked twice.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from evals.gate import GateDecision, GatePolicy, decide, plan_of_suite
from evals.gate_blocks import BlockPlan
from evals.gate_sentences import change_headline
from evals.gated import GatedChange, GatedSuite, diff_cases, diff_items, used_ids
from evals.prompt import Prompt, load_prompt, messages
from evals.report import EvalReport
from evals.suite import Item, SuiteInvalid, load_items, resolve_task
from tasks.asked import Endpoint, Question, ask, ask_in_blocks
from tasks.changes import Change, export_tree, list_paths, read_change, read_plain_file
from tasks.gate_documents import Side, documents_data, documents_folders, gate_documents
from tasks.judge import policy_of
from tasks.noise import check_margin
from tasks.touched import CODE, DATA, MEASURE, SPEC, TESTED, TRAINING, SuiteAt, Touched, suites_at, touched_suites
from tasks.touched_chains import chain_files, chain_folders, gate_chains

PROMPT_FIELDS = ("prompt_sha256", "task_sha256", "cases_sha256")  # the last two hold the prompt; the measure is shared
QUESTION_CHARACTERS = 600


class ChangeRefused(Exception):
    """The gate on a change did not pass. `gated` says why."""

    def __init__(self, gated: GatedChange) -> None:
        super().__init__(f"{gated.verdict}: {change_headline(gated)}")
        self.gated = gated


@dataclass(frozen=True)
class Asked:
    """What `liftlock gate --base --head` was asked. `fork`: of the head only data is taken, no code and no policy."""

    repo: Path
    base: str
    head: str
    fork: bool
    endpoint: Endpoint


def gate_change(asked: Asked) -> GatedChange:
    """Raises ChangeUnread, SpecInvalid, SuiteInvalid, PromptInvalid, and what the runners raise; nothing is judged then."""
    change = read_change(asked.repo, asked.base, asked.head)
    old, new = (list_paths(change.repo, commit) for commit in (change.base, change.head))
    chains = chain_folders(new)
    with _trees(change, asked, old) as (base, head):
        gated = gate_chains(base, _delivery(change, asked, chains, head), chains, change.paths)
        before = suites_at(base, old)
        after = suites_at(head, list(before) if asked.fork else new)
        touched = touched_suites(before, after, change.paths)
        judged = [one for one in touched if set(one.kinds) - {TRAINING}]
        suites = tuple(_gate(one, asked) for one in judged)
        lost, kept = documents_folders(old), documents_folders(new)
        suites += _documents(change, asked, base, head, lost if asked.fork else kept)
    removed = _removed((*before, *lost), {*after, *kept})
    return GatedChange(change.base, change.head, suites, (*removed, *_trained(touched)), gated)


def _documents(
    change: Change, asked: Asked, base: Path, head: Path, folders: tuple[str, ...]
) -> tuple[GatedSuite, ...]:
    """Each suite of questions over documents that the change touches."""
    return tuple(
        gated
        for folder in folders
        for gated in gate_documents(
            Side(f"base {change.base[:12]}", base, folder), Side(f"head {change.head[:12]}", head, folder),
            change.paths, asked.endpoint.settings, fork=asked.fork,
        )
    )  # fmt: skip


@contextmanager
def _trees(change: Change, asked: Asked, old: tuple[str, ...]) -> Iterator[tuple[Path, Path]]:
    """(base, head) as folders. Of a fork's head there are only the data files of the base's suites."""
    state = asked.endpoint.state
    state.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="gate-", dir=state) as made:
        base = export_tree(change.repo, change.base, Path(made) / "base")
        head = export_tree(change.repo, change.base if asked.fork else change.head, Path(made) / "head")
        if asked.fork:
            _take_data(change, base, head, old)
        yield base, head


def _take_data(change: Change, base: Path, head: Path, old: tuple[str, ...]) -> None:
    suites = suites_at(base, old)
    new = [path for path in change.paths if PurePosixPath(path).name == SPEC and path not in suites]
    if new:
        raise SuiteInvalid(f"{new[0]} is new in a fork; a suite holds code: a maintainer has to gate it without --fork")
    taken = {path for suite in suites.values() for path, kind in suite.files.items() if kind in DATA}
    taken |= {*documents_data(documents_folders(old), change.paths)}
    _take(change, head, taken & set(change.paths))


def _delivery(change: Change, asked: Asked, chains: tuple[str, ...], head: Path) -> Path:
    """The head's manifests. Of a fork they lie in a tree of their own, where no suite runs what they hold."""
    if not asked.fork or not chains:
        return head
    tree = export_tree(change.repo, change.base, head.with_name("delivery"))
    _take(change, tree, chain_files(chains, change.paths))
    return tree


def _take(change: Change, tree: Path, paths: Iterable[str]) -> None:
    """The head's content of `paths` into `tree`. Raises ChangeUnread for what is no plain file."""
    for path in sorted(paths):
        content = read_plain_file(change.repo, change.head, path)
        if content is None:
            (tree / path).unlink(missing_ok=True)
        else:
            (tree / path).parent.mkdir(parents=True, exist_ok=True)
            (tree / path).write_bytes(content)


def _gate(touched: Touched, asked: Asked) -> GatedSuite:
    head, base = touched.head, touched.base or touched.head
    where = asked.endpoint
    policy = policy_of(base.spec, base.path)
    check_margin(where.state, head.spec.gate, head.spec.dataset.test, policy)
    ours, theirs = _question(head, head), _question(base, head)
    candidate, baseline, reused, plan = _ask_both(ours, theirs, where, policy)
    decision = decide(candidate, baseline, policy, under_test=PROMPT_FIELDS, plan=plan)
    return GatedSuite(
        suite=head.name,
        touched=touched.kinds,
        metric=base.spec.gate.metric,
        decision=_capped(decision, touched, asked.fork),
        items=diff_items(candidate, baseline, used_ids(candidate, decision, policy), _questions(head)),
        cases=diff_cases(candidate, baseline),
        reused=reused,
        notes=_notes(touched, where),
    )


def _ask_both(
    ours: Question, theirs: Question, where: Endpoint, policy: GatePolicy
) -> tuple[EvalReport, EvalReport, bool, BlockPlan | None]:
    """(candidate, baseline, whether the baseline's results were reused, the plan where they were asked in blocks)."""
    if theirs == ours:
        candidate, _ = ask(ours, where, f"{ours.suite} candidate")
        return candidate, candidate, False, None
    if not policy.block:
        candidate, _ = ask(ours, where, f"{ours.suite} candidate")
        return candidate, *ask(theirs, where, f"{ours.suite} baseline"), None
    items = load_items(ours.dataset)
    plan = plan_of_suite(items, resolve_task(ours.task, ours.dataset, ours.prompt).slices, policy)
    candidate, baseline, reused = ask_in_blocks(ours, theirs, where, plan, policy, PROMPT_FIELDS)
    return candidate, baseline, reused, plan


def _question(side: SuiteAt, measure: SuiteAt) -> Question:
    """The side's prompt and model, on the measure's task, cases and items."""
    gate = measure.spec.gate
    return Question(
        suite=measure.name,
        task=gate.task,
        cases=gate.cases,
        prompt=load_prompt(side.spec.gate.prompt),
        dataset=measure.spec.dataset.test,
        metric=gate.metric,
        base_model=side.spec.base_model,
        model=side.pin.model if side.pin else None,
        model_sha256=side.pin.sha256 if side.pin else None,
        cluster=gate.cluster,
        repeats=gate.repeats,
    )


def _capped(decision: GateDecision, touched: Touched, fork: bool) -> GateDecision:
    """A pass of a fork whose code or policy was left out is none: part of the change was not judged."""
    untaken = [kind for kind in touched.kinds if kind in CODE]
    if not fork or not untaken or decision.verdict == "rejected":
        return decision
    reason = (
        f"The fork changes {', '.join(untaken)}, which can run code or set the rule; the base's was used instead: "
        "a maintainer has to read it and run the gate without --fork."
    )
    return replace(decision, verdict="inconclusive", reasons=(reason, *decision.reasons))


def _questions(head: SuiteAt) -> dict[str, str]:
    prompt = load_prompt(head.spec.gate.prompt)
    return {str(item["id"]): _told(prompt, item) for item in load_items(head.spec.dataset.test)}


def _told(prompt: Prompt, item: Item) -> str:
    text = messages(prompt, item)[-1]["content"]
    return text if len(text) <= QUESTION_CHARACTERS else f"{text[:QUESTION_CHARACTERS]}…"


def _notes(touched: Touched, where: Endpoint) -> tuple[str, ...]:
    kinds = set(touched.kinds)
    found = []
    if touched.base is None:
        found.append("The suite is new: it is compared with itself, so only its floor and its cases can say no.")
    elif not kinds & set(TESTED):
        found.append("Prompt and model are the same on both sides: only the floor and the cases can say no.")
    if measured := [kind for kind in touched.kinds if kind in MEASURE]:
        found.append(
            f"The change also moves the measure ({', '.join(measured)}): both sides were asked with the new one."
        )
    if SPEC in kinds and touched.base is not None:
        found.append("The change edits release.yaml: the rule in force is the one before the change.")
    if touched.head.pin is None:
        found.append(
            f"No adapter.yaml pins the bytes of {where.model or touched.head.name}, so results are not kept for reuse."
        )
    return tuple(found)


def _removed(before: tuple[str, ...], after: set[str]) -> tuple[str, ...]:
    return tuple(f"The change removes the suite {path}." for path in before if path not in after)


def _trained(touched: tuple[Touched, ...]) -> tuple[str, ...]:
    return tuple(
        f"{one.head.name}: training data changed; the adapter that is trained from it is judged at its release."
        for one in touched
        if TRAINING in one.kinds
    )
