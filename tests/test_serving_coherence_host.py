"""The host platform's values of today: exactly its known incoherences, each named. Reviewed by hand against its timeout map,
and against the programs' sources, which say otherwise of two clients (docs/decisions.md)."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import date
from pathlib import Path

from serving.coherence.check import check

ROOT = Path(__file__).resolve().parent.parent
HOST = ROOT / "tests" / "data" / "coherence" / "host"
# rule, hop, clients: and why it is one
KNOWN = {
    (
        "client-router",
        "OpenAI SDK",
        "OpenAI SDK",
    ),  # 600 s; three tries of 300 s behind the gateway, 18,000 s without it
    ("client-router", "n8n", "n8n"),  # 300 s: no n8n reads the N8N_WEBHOOK_TIMEOUT of its manifest
    ("client-route", "n8n", "n8n"),  # 300 s is not above the route's 300 s
    ("retries-two-layers", "LiteLLM", "OpenAI SDK"),  # 3 × 3 = 9
    ("cancel-lost", "LiteLLM", "OpenAI SDK, Open WebUI, n8n"),  # of whole answers; its 1.89.2 cannot, 1.90 can
    ("no-inner-bound", "LiteLLM", "OpenAI SDK, Open WebUI, n8n"),  # coder-chat has no gateway in between
    ("implicit-route-timeout", "KServe's route of kserve/qwen-oci", "OpenAI SDK"),  # 60 s that nobody wrote
    ("drain-short", "LiteLLM", "OpenAI SDK, Open WebUI, n8n"),  # the chart's 90 s
    ("drain-short", "serving/raw-vllm", "OpenAI SDK, Open WebUI, n8n"),  # 30 s, and vLLM aborts at once
    ("drain-short", "serving/coder-chat", "n8n"),  # the others' streams have no end
    ("drain-short", "kserve/qwen-oci", "OpenAI SDK"),
    ("no-pre-stop", "LiteLLM", "OpenAI SDK, Open WebUI, n8n"),
    ("no-pre-stop", "serving/raw-vllm", "OpenAI SDK, Open WebUI, n8n"),
    ("no-pre-stop", "serving/coder-chat", "OpenAI SDK, Open WebUI, n8n"),
    ("no-pre-stop", "kserve/qwen-oci", "OpenAI SDK"),
}


def test_the_host_has_exactly_its_known_incoherences() -> None:
    found = check([HOST], date(2026, 11, 28))
    assert {(each.finding.rule, each.finding.hop, ", ".join(each.clients)) for each in found.findings} == KNOWN
    assert len(found.findings) == len(KNOWN)


def test_the_hosts_amplification_and_worst_case() -> None:
    """LiteLLM: three tries of 300 s, waits of 0.5, 1 and 2 s (it waits after the last one too), each with jitter. The SDK: three times 600 s."""
    from serving.coherence.worst import amplification, silent_seconds

    chains = {(chain.alias, chain.client): chain for chain in check([HOST], date(2026, 11, 28)).chains}
    chain = chains["qwen-local", "OpenAI SDK"]
    assert amplification(chain.hops) == 9
    assert silent_seconds(chain.hops[2:], False) == 3 * 300 + (0.5 + 1 + 2) + 3 * 0.75
    assert silent_seconds(chain.hops, False) == 3 * 600 + 0.5 + 1


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "flows.cli", "coherence", *arguments]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)


def test_the_command_says_no_and_why() -> None:
    done = run(str(HOST))
    assert done.returncode == 3, done.stderr
    assert "OpenAI SDK 3 × LiteLLM 3: one request becomes 9 at the engine" in done.stdout
    assert "incoherent: 15 findings (7 chains from 5 files)" in done.stdout


def test_the_json_document_and_sarif_name_files_and_lines() -> None:
    document = json.loads(run(str(HOST), "--json").stdout)
    assert document["coherent"] is False and len(document["findings"]) == 15
    log = json.loads(run(str(HOST), "--sarif").stdout)
    results = log["runs"][0]["results"]
    known = {rule["id"] for rule in log["runs"][0]["tool"]["driver"]["rules"]}
    assert log["version"] == "2.1.0" and len(results) == 15 and {each["ruleId"] for each in results} <= known
    place = next(each for each in results if each["ruleId"] == "implicit-route-timeout")["locations"][0][
        "physicalLocation"
    ]
    lines = (ROOT / place["artifactLocation"]["uri"]).read_text().splitlines()
    assert "predictor" in lines[place["region"]["startLine"] - 1]


def test_bad_input_is_told_with_code_2(tmp_path: Path) -> None:
    (tmp_path / "none.yaml").write_text("a: 1\n")
    cases = {
        ("nowhere",): "no such file or folder",
        (str(tmp_path),): "no chain to a model in them",
        (str(HOST), "--json", "--sarif"): "--json and --sarif are two documents",
    }
    for arguments, said in cases.items():
        done = run(*arguments)
        assert (done.returncode, said in done.stderr, "Traceback" in done.stderr) == (2, True, False), done.stderr


def test_the_page_has_the_rules_and_the_defaults_as_they_are() -> None:
    from serving.coherence.defaults import rows
    from serving.coherence.findings import RULES

    page = (ROOT / "docs" / "coherence.md").read_text()
    for name, rule in RULES.items():
        assert f"| `{name}` | {rule.title} | {rule.why} |" in page
    for row in rows().values():
        assert f"| {row['program']} | {row['what']} |" in page and row["source"] in page


def test_the_pages_chain_file_is_one_that_is_read(tmp_path: Path) -> None:
    import re

    from serving.coherence.bounded_yaml import read_text
    from serving.coherence.given import given_hops, suppressions

    block = re.search(r"```yaml\n(liftlock: chain.*?)```", (ROOT / "docs" / "coherence.md").read_text(), re.S)
    assert block
    document = read_text(block.group(1), "page")[0]
    assert given_hops(document, "page")["my-alias"][0].cancels is False
    assert suppressions(document, "page")[0].expires == date(2027, 3, 1)
