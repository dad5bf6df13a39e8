"""The whole path with every part real: released, refused, from the cache, and asked by clients. The worker: test_flows_promotion."""

from __future__ import annotations

import getpass
import json
import subprocess
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import mlflow
import openai
import psutil
import pytest

from serving.rollout.golden import key_of
from tasks.golden import golden_of
from tests.fix_caller import Caller
from tests.fix_engine import FakeEngine
from tests.fix_stack import NAME, ROOT, SUITE, TICKET, Stack, Takeover

pytestmark = [pytest.mark.slow, pytest.mark.stack, pytest.mark.timeout(3600)]  # of a whole release
STAGES = ["prepare", "train", "evaluate", "judge", "register", "preflight", "build_and_push", "roll_out", "sample"]
A_SECOND = 20
MOVES = """
from tasks.promote import promote_version
from tasks.rollback import roll_back
from tasks.settings import get_settings
from tasks.stack.addresses import addresses, export_client_settings

export_client_settings(addresses(get_settings()))
for turn in range(5):
    up = promote_version("{name}", "{new}", "champion", expected="{old}", reason=f"turn {{turn}}")
    assert up.moved
    assert roll_back("{name}").to_version == "{old}"
"""
PROMPT = [
    {"role": "system", "content": "Name the team."},
    {"role": "user", "content": TICKET},
]


def client_of(stack: Stack) -> mlflow.MlflowClient:
    return mlflow.MlflowClient(f"http://127.0.0.1:{stack.ports()['mlflow']}")


def test_make_release_reaches_champion(stack: Stack, champion: dict[str, Any]) -> None:
    assert champion["verdict"] == "champion"
    assert [stage["name"] for stage in champion["stages"]] == STAGES
    assert not any(stage["cached"] for stage in champion["stages"])
    assert champion["model"]["aliases"] == ["candidate", "champion", "staging"]
    assert Path(champion["report"]).stat().st_size > 20_000
    assert "is champion" in champion["stdout"]


def test_the_adapter_is_good_enough_and_better_than_the_base(stack: Stack, champion: dict[str, Any]) -> None:
    tags = client_of(stack).get_model_version("ticket-router", champion["model"]["version"]).tags
    assert float(tags["liftlock.score"]) >= 0.85
    low = float(tags["liftlock.difference"].split("[")[1].split(",")[0])
    assert low > 0
    assert tags["liftlock.baseline_version"] == "base"


def test_the_evidence_names_the_bytes(stack: Stack, champion: dict[str, Any]) -> None:
    """The tags' digests are those of the files, computed here from the files."""
    import hashlib

    version = client_of(stack).get_model_version("ticket-router", champion["model"]["version"])
    reference = version.tags["liftlock.modelcar"]
    manifest = stack.state / "modelcars" / "blobs" / "sha256" / reference.rpartition(":")[2]
    assert hashlib.sha256(manifest.read_bytes()).hexdigest() == manifest.name
    placed = stack.state / "adapters" / version.tags["liftlock.engine_model"]
    digest = hashlib.sha256()
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        digest.update((placed / name).read_bytes())
    assert digest.hexdigest() == version.tags["liftlock.adapter_sha256"]


def test_the_image_is_signed_and_the_promise_of_the_fit_was_kept(stack: Stack, champion: dict[str, Any]) -> None:
    version = champion["model"]["version"]
    image = f"oci:{stack.state}/modelcars:ticket-router-{version}"
    asked = ("--require", "provenance", "--require", "verdict", "--ledger", "ticket-router", "--json")
    done = stack.run("modelcar", "verify", image, *asked)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["verdict"] == "PASSED"
    tags = client_of(stack).get_model_version("ticket-router", version).tags
    assert tags["liftlock.signature"] == json.loads(done.stdout)["payload_digest"]
    assert tags["liftlock.fit_contract"] == "kept: 2048 tokens given, 2048 promised"
    assert tags["liftlock.licence"] == "apache-2.0"
    assert "Predicted against actual" in Path(champion["report"]).read_text()


def test_the_openai_client_gets_the_champion_by_the_models_name(stack: Stack, champion: dict[str, Any]) -> None:
    client = openai.OpenAI(base_url=f"{stack.gateway}/v1", api_key="none")
    answer = client.chat.completions.create(model="ticket-router", messages=PROMPT, max_tokens=8, temperature=0)  # type: ignore[arg-type]
    assert answer.choices[0].message.content == "shipping"
    stream = client.chat.completions.create(
        model="ticket-router", messages=PROMPT, max_tokens=8, temperature=0, stream=True
    )  # type: ignore[arg-type]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices) == "shipping"
    assert "ticket-router" in [model.id for model in client.models.list()]
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="nobody", messages=PROMPT)  # type: ignore[arg-type]


def test_curl_gets_the_champion(stack: Stack, champion: dict[str, Any]) -> None:
    body = json.dumps({"model": "ticket-router", "messages": PROMPT, "max_tokens": 8, "temperature": 0})
    done = subprocess.run(
        [
            "curl",
            "-sS",
            "-D-",
            f"{stack.gateway}/v1/chat/completions",
            "-H",
            "content-type: application/json",
            "-d",
            body,
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "x-liftlock-version: ticket-router-" in done.stdout
    assert '"content":"shipping"' in done.stdout


def test_status_shows_every_part_ready(stack: Stack, champion: dict[str, Any]) -> None:
    done = stack.run("status", "--json")
    assert done.returncode == 0, done.stdout
    document = json.loads(done.stdout)
    assert {row["part"]: row["health"] for row in document["parts"]} == dict.fromkeys(
        ("postgres", "mlflow", "prefect", "worker", "watch", "vllm", "envoy", "embeddings"), "ready"
    )


def test_status_says_what_is_served_since_when_on_what_evidence(stack: Stack, champion: dict[str, Any]) -> None:
    document = json.loads(stack.run("status", "--json").stdout)
    (served,) = [one for one in document["served"] if one["model"] == "ticket-router"]
    assert served["version"] == champion["champion"]["version"] and served["by"] == getpass.getuser()
    assert datetime.fromisoformat(served["since"]).timestamp() > champion["began"]
    assert served["evidence"]["modelcar"] == champion["champion"]["reference"]
    assert served["judged"].startswith("passed: exact_match,none is ") and Path(served["report"]).is_file()
    assert document["under_way"] == [] and document["ledger"]


def test_with_nothing_changed_every_stage_comes_from_the_cache(stack: Stack, champion: dict[str, Any]) -> None:
    done = stack.run("release", str(SUITE / "release.yaml"), "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert {"run_id", "verdict", "exit_code", "stages", "model", "champion", "report"} <= set(document)
    assert {stage["name"]: stage["cached"] for stage in document["stages"]} == {
        name: name != "prepare" for name in STAGES
    }
    assert document["champion"] == champion["champion"]
    assert done.stderr.count("from the cache") == len(STAGES) - 1


def test_the_mislabelled_release_is_refused_and_the_champion_stays(stack: Stack, champion: dict[str, Any]) -> None:
    done = stack.run("release", "evals/ticket_router/release-mislabelled.yaml", "--json")
    document = json.loads(done.stdout)
    assert (done.returncode, document["exit_code"], document["verdict"]) == (3, 3, "rejected")
    assert [stage["name"] for stage in document["stages"]] == STAGES[:4]
    assert any("exact_match" in reason and "rejected" in reason for reason in document["reasons"])
    assert document["champion"] == champion["champion"]
    assert (
        client_of(stack).get_model_version_by_alias("ticket-router", "champion").version
        == champion["champion"]["version"]
    )
    assert "rejected" in Path(document["report"]).read_text()


def test_two_releases_of_one_model_at_once_are_refused(stack: Stack, champion: dict[str, Any], tmp_path: Path) -> None:
    import psycopg

    from tasks.settings import Settings
    from tasks.stack.addresses import addresses

    dsn = addresses(Settings(state=stack.state)).dsn("liftlock")
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(hashtextextended('liftlock/ticket-router', 1))")
        done = stack.run("release", str(SUITE / "release.yaml"))
    assert done.returncode == 2
    assert "another release of ticket-router is under way" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_starting_spec_of_ones_own_runs(stack: Stack, champion: dict[str, Any], tmp_path: Path) -> None:
    assert stack.run("init", str(tmp_path / "my-model")).returncode == 0
    done = stack.run("release", str(tmp_path / "my-model" / "release.yaml"), "--json")
    document = json.loads(done.stdout)
    assert document["verdict"] in ("champion", "rejected", "inconclusive")
    assert done.returncode == document["exit_code"] in (0, 3, 4)


def _as_on_record(stack: Stack, takeover: Takeover) -> Callable[[str, Any], str | None]:
    """A canary must answer its golden prompts as at its evaluation."""
    client, said = client_of(stack), dict[tuple[str, str], str]()
    for number in (takeover.old, takeover.new):
        name = client.get_model_version(NAME, number).tags["liftlock.engine_model"]
        said |= {(name, key_of(one.messages)): one.answer for one in golden_of(client, NAME, number)}
    return lambda model, messages: said.get((model, key_of(messages or ())))


def test_no_request_of_twenty_a_second_fails_during_ten_promotions_and_rollbacks(
    stack: Stack, takeover: Takeover, engine: FakeEngine
) -> None:
    """All real but the engine, which answers at once: the machine's own answers six a second. The next test puts it back."""
    assert stack.run("rollback", NAME, "--to", takeover.old).returncode == 0
    engine.adapters, engine.says = stack.state / "adapters", _as_on_record(stack, takeover)
    environment = {**stack.environment, "LIFTLOCK_VLLM_URL": engine.url}
    code = MOVES.format(name=NAME, old=takeover.old, new=takeover.new)
    up = subprocess.run([*stack.argv, "up"], env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert up.returncode == 0, up.stderr
    with Caller(stack.gateway, NAME, A_SECOND) as caller:
        done = subprocess.run(
            [stack.argv[0], "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stderr
    told = json.loads(stack.run("history", NAME, "--json").stdout)[-10:]
    _undone(stack, takeover, engine, environment)
    engine.adapters, engine.says = None, lambda *_: None
    assert caller.failed == []
    assert caller.answered > 10 * A_SECOND
    assert caller.left_out <= caller.answered // 20
    assert client_of(stack).get_model_version_by_alias(NAME, "champion").version == takeover.old
    moved = [(one["kind"], one["to_version"]) for one in told]
    assert moved == 5 * [("move", takeover.new), ("rollback", takeover.old)]
    assert stack.run("ledger", "verify").returncode == 0


def _undone(stack: Stack, takeover: Takeover, engine: FakeEngine, environment: dict[str, str]) -> None:
    """A canary that answers wrong: exit 3, and alias, traffic and record are where they were."""
    new = client_of(stack).get_model_version(NAME, takeover.new).tags["liftlock.engine_model"]
    before, right = json.loads(stack.run("history", NAME, "--json").stdout), engine.says
    engine.says = lambda model, messages: "wrong" if model == new else right(model, messages)
    argv = [*stack.argv, "promote", f"{NAME}/{takeover.new}", "--to", "champion"]
    done = subprocess.run(argv, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 3, f"{done.stdout}{done.stderr}"
    assert client_of(stack).get_model_version_by_alias(NAME, "champion").version == takeover.old
    shown = json.loads(stack.run("show", NAME, "--json").stdout)
    assert (shown["coherent"], shown["served_version"]) == (True, takeover.old)
    assert json.loads(stack.run("history", NAME, "--json").stdout) == before
    assert stack.last_run()["verdict"] == "undone"


def test_down_leaves_nothing_running_and_up_serves_the_champion_again(stack: Stack, champion: dict[str, Any]) -> None:
    def mine() -> list[str]:
        return [
            " ".join(one.info["cmdline"] or ())
            for one in psutil.process_iter(["cmdline"])
            if str(stack.state) in " ".join(one.info["cmdline"] or ())
            or " ".join(one.info["cmdline"] or ()).startswith("VLLM::")  # the engine's own children rename themselves
        ]

    assert mine()
    assert stack.run("down").returncode == 0
    assert mine() == []
    ports = stack.ports()
    up = stack.run("up")
    assert up.returncode == 0, up.stderr
    assert stack.ports() == ports
    assert stack.ask("ticket-router") == "shipping"
