"""Runs a suite's promptfoo cases against a served model. Effect (a Node child process, HTTP).

The runner writes the prompt's messages into each case itself: promptfoo's own templates would render `{{…}}` and read
`file://…` found in a test's text. A promptfoo configuration is code (its JavaScript assertions run here): only a
trusted suite may be given. promptfoo still looks up its telemetry host once; it sends nothing with the switches below.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evals.child import PROGRESS, Finished, Progress, run_child
from evals.endpoint import probe
from evals.prompt import Prompt, messages
from evals.report import AssertionCounts, PromptCase, canonical, count_cases
from evals.suite import SuiteInvalid, load_yaml

RAN = (0, 100)  # 100: it ran, and some cases failed or errored
ERRORED = 2  # failureReason of a case that was not judged: no answer, or no configuration
KEYS = {"description", "defaultTest", "tests"}  # prompt and provider are the runner's
THREW = "Custom function threw error"  # promptfoo calls a broken assertion a failed one

# Longer than any label, so that an answer that goes on is seen to go on. No stop sequence, for the same reason.
SAMPLING = {"temperature": 0, "max_tokens": 16, "seed": 1234}
RETRIES = 2  # without a bound a dead endpoint costs 45 seconds a case

SWITCHES = {
    "PROMPTFOO_DISABLE_TELEMETRY": "1",
    "PROMPTFOO_DISABLE_UPDATE": "1",
    "PROMPTFOO_DISABLE_REMOTE_GENERATION": "1",
    "PROMPTFOO_DISABLE_SHARING": "1",
    "PROMPTFOO_DISABLE_RUNTIME_WARNINGS": "1",
    "PROMPTFOO_DISABLE_TEMPLATING": "1",
    "PROMPTFOO_DISABLE_VAR_EXPANSION": "1",
    "PROMPTFOO_DISABLE_REF_PARSER": "1",
    "NO_PROXY": "*",
    "no_proxy": "*",
}
UNSET = (
    "OPENAI_API_KEY",
    "OPENAI_BASE_URL",
    "OPENAI_API_BASE_URL",
    "OPENAI_API_HOST",
    "OPENAI_ORGANIZATION",
    "PROMPTFOO_FAILED_TEST_EXIT_CODE",
    "PROMPTFOO_PASS_RATE_THRESHOLD",
)

# Not --no-write: it leaves the results out of the output file. The database that it writes stays in the work folder.
FLAGS = ("--no-cache", "--no-share", "--no-table", "--no-progress-bar", "-j", "4")

PROMPT_JS = "module.exports = ({ vars }) => JSON.parse(vars.messages);\n"
HOOK_JS = f"module.exports = async () => {{ process.stdout.write('{PROGRESS} 1\\n'); }};\n"


class PromptfooFailed(Exception):
    """promptfoo could not run the cases. The message holds its last words."""


def cases_sha256(config: Path, prompt: Prompt) -> str:
    """Of the cases as they would be asked, with their assertions and sampling."""
    resolved = _resolve(config, prompt, base_url="", model="")
    return hashlib.sha256(canonical(resolved).encode()).hexdigest()


def list_cases(config: Path, prompt: Prompt) -> tuple[tuple[str, str], ...]:
    """(id, group) of each case, in the file's order. Raises SuiteInvalid, PromptInvalid."""
    tests = _resolve(config, prompt, base_url="", model="")["tests"]
    return tuple((str(test["metadata"]["id"]), str(test["metadata"].get("group", ""))) for test in tests)


def run_promptfoo(
    config: Path,
    *,
    promptfoo: Path,
    base_url: str,
    model: str,
    prompt: Prompt,
    workdir: Path,
    timeout_s: float = 900.0,
    progress: Progress,
    only: Sequence[str] | None = None,
) -> tuple[tuple[PromptCase, ...], AssertionCounts, str]:
    """Cases in the file's order, their counts, and promptfoo's version. `promptfoo` is the program's path, `only` are the ids
    to ask; None asks all.

    Raises EndpointUnreachable, ModelNotServed, SuiteInvalid, PromptInvalid or PromptfooFailed.
    """
    served = probe(base_url, model)
    resolved = _resolve(config, prompt, served.base_url, model)
    if only is not None:
        resolved["tests"] = [test for test in resolved["tests"] if test["metadata"]["id"] in only]
    if not promptfoo.is_file():
        raise PromptfooFailed(f"{promptfoo} is missing; install it with npm ci from evals/promptfoo/package-lock.json")
    workdir = workdir.resolve()
    output = _write(resolved, workdir)
    finished = run_child(
        [str(promptfoo.resolve()), "eval", "-c", "config.json", "-o", str(output), *FLAGS],
        cwd=workdir,
        log=workdir / "promptfoo.log",
        timeout_s=timeout_s,
        total=len(resolved["tests"]),
        progress=progress,
        set_env={**SWITCHES, "PROMPTFOO_CONFIG_DIR": str(workdir / "state")},
        unset_env=UNSET,
    )
    if finished.timed_out or finished.returncode not in RAN or not output.is_file():
        raise PromptfooFailed(_why(finished, model, timeout_s, workdir))
    return parse_results(output.read_text(encoding="utf-8"), [test["metadata"]["id"] for test in resolved["tests"]])


def parse_results(text: str, asked: Sequence[str]) -> tuple[tuple[PromptCase, ...], AssertionCounts, str]:
    """Read promptfoo's output JSON. PromptfooFailed unless every asked case has exactly one result."""
    try:
        found = json.loads(text)
        cases = {case.id: case for case in map(_case, found["results"]["results"])}
        stats, version = found["results"]["stats"], str(found["metadata"]["promptfooVersion"])
        told = int(stats["successes"]) + int(stats["failures"]) + int(stats["errors"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PromptfooFailed(f"promptfoo's output cannot be read ({error!r}); run the cases again") from error
    if set(cases) != set(asked) or told != len(asked):
        raise PromptfooFailed(f"promptfoo gave {told} results ({len(cases)} known ids) for {len(asked)} cases")
    ordered = tuple(cases[key] for key in asked)
    counts = count_cases(ordered)
    if counts.passed != stats["successes"]:
        raise PromptfooFailed(f"promptfoo counts {stats['successes']} passed cases; its results hold {counts.passed}")
    return ordered, counts, version


def _case(row: Mapping[str, Any]) -> PromptCase:
    metadata = row["testCase"]["metadata"]
    graded, answered = row.get("gradingResult") or {}, row.get("response") or {}
    reason = str(row.get("error") or graded.get("reason") or "")
    answer = answered.get("output")
    return PromptCase(
        id=str(metadata["id"]),
        group=str(metadata.get("group", "")),
        passed=bool(row["success"]),
        errored=row["failureReason"] == ERRORED or _threw(graded),
        reason="" if row["success"] else reason,
        answer=answer if isinstance(answer, str) else "" if answer is None else json.dumps(answer),
    )


def _threw(graded: Mapping[str, Any]) -> bool:
    parts = [graded, *(graded.get("componentResults") or [])]
    return any(str(part.get("reason", "")).startswith(THREW) for part in parts if part)


def _resolve(config: Path, prompt: Prompt, base_url: str, model: str) -> dict[str, Any]:
    """The configuration as it is run: ours but for the tests and what all tests share."""
    own = load_yaml(config)
    if unknown := set(own) - KEYS:
        raise SuiteInvalid(f"{config} has {', '.join(sorted(unknown))}; only {', '.join(sorted(KEYS))} are run")
    tests = own.get("tests")
    if not isinstance(tests, list) or not tests:
        raise SuiteInvalid(f"{config} needs a list of tests, written in the file")
    settings = {"apiBaseUrl": base_url, "apiKey": "unused", "maxRetries": RETRIES, **SAMPLING}
    resolved = [_test(test, prompt, f"{config} test {number}") for number, test in enumerate(tests, 1)]
    ids = [test["metadata"]["id"] for test in resolved]
    if len(set(ids)) != len(ids):
        raise SuiteInvalid(f"{config} has the case id {max(ids, key=ids.count)!r} twice; ids must be unique")
    return {
        "description": str(own.get("description", config.parent.name)),
        "prompts": ["file://prompt.cjs"],
        "providers": [{"id": f"openai:chat:{model}", "config": settings}],
        "extensions": ["file://hook.cjs:afterEach"],
        "defaultTest": own.get("defaultTest", {}),
        "tests": resolved,
    }


def _test(test: Any, prompt: Prompt, where: str) -> dict[str, Any]:
    if not isinstance(test, dict) or not isinstance(test.get("vars"), dict):
        raise SuiteInvalid(f"{where} has no vars")
    metadata = test.get("metadata")
    case_id = metadata.get("id") if isinstance(metadata, dict) else None
    if not isinstance(case_id, str) or not case_id:
        raise SuiteInvalid(f"{where} has no metadata.id; results are paired by it")
    asked = json.dumps(messages(prompt, test["vars"]), ensure_ascii=False)
    return {**test, "vars": {"messages": asked}}


def _write(resolved: dict[str, Any], workdir: Path) -> Path:
    workdir.mkdir(parents=True, exist_ok=True)
    for name, text in (("prompt.cjs", PROMPT_JS), ("hook.cjs", HOOK_JS), ("config.json", json.dumps(resolved))):
        (workdir / name).write_text(text, encoding="utf-8")
    output = workdir / "output.json"
    output.unlink(missing_ok=True)
    return output


def _why(finished: Finished, model: str, timeout_s: float, workdir: Path) -> str:
    if finished.timed_out:
        return f"promptfoo on {model!r} took more than {timeout_s:.0f} s and was stopped; raise the limit"
    tail = finished.tail or "it said nothing"
    return f"promptfoo on {model!r} ended with exit code {finished.returncode}: {tail}. See {workdir / 'promptfoo.log'}"
