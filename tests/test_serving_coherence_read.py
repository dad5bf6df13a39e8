"""Durations of every program, hostile YAML, Helm's merge, suppressions, and each reader on what it reads."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from serving.coherence.bounded_yaml import MAX_BYTES, YamlRefused, read_text
from serving.coherence.check import check
from serving.coherence.defaults import rows
from serving.coherence.duration import DurationInvalid, seconds
from serving.coherence.objects import InputInvalid, merge_values
from tests.fix_coherence import TODAY, Handle, changed, checked, coherent, rules_of, written

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize(
    ("value", "style", "expected"),
    [
        ("300s", "gateway", 300), ("1h2m3s4ms", "gateway", 3723.004), ("5m", "gateway", 300), ("0s", "gateway", 0),
        ("1.5h", "go", 5400), ("250us", "go", 0.00025), ("1h0m0.5s", "go", 3600.5), ("0", "go", 0), ("7ns", "go", 7e-9),
        ("0.25s", "proto", 0.25), ("15s", "proto", 15), ({"seconds": 3, "nanos": 500_000_000}, "proto", 3.5),
        (600, "number", 600), (0.5, "number", 0.5), ("90", "number", 90),
        ("10m", "any", 600), (45, "any", 45), ("45", "any", 45),
    ],
)  # fmt: skip
def test_a_duration_as_its_program_writes_it(value: object, style: str, expected: float) -> None:
    assert seconds(value, style, "here") == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("value", "style"),
    [
        ("1.5s", "gateway"), ("-1s", "gateway"), ("300", "gateway"), (300, "gateway"), ("1d", "gateway"), ("1s2s3s4s5s", "gateway"),
        ("5m", "proto"), ("1s1s", "proto"), ("", "go"), ("1 s", "go"), (None, "go"), (True, "number"), ("ten", "number"),
        (float("inf"), "number"), (-1, "number"), ([1], "any"), ("999999s", "gateway"),
    ],
)  # fmt: skip
def test_what_the_program_would_refuse_is_refused(value: object, style: str) -> None:
    with pytest.raises(DurationInvalid, match="here"):
        seconds(value, style, "here")


SCALARS = st.none() | st.booleans() | st.integers(-(10**15), 10**15) | st.text("abc:#'\" \n-", max_size=9)
KEYS = st.text("abc", min_size=1, max_size=3)


def nested(inner: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4)


@given(st.recursive(SCALARS, nested, max_leaves=12))
def test_yaml_reads_as_pyyaml_reads_it(value: object) -> None:
    text = yaml.safe_dump(value)
    assert read_text(text, "f") == ([] if value is None else [value])


def test_merge_keys_and_anchors_are_read() -> None:
    text = "a: &x {b: 1, c: 2}\nd: {<<: *x, c: 3}\ne: *x\n"
    assert read_text(text, "f") == [yaml.safe_load(text)]


BOMB = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 10)}]\n" for i in range(12)
)
HOSTILE = {
    "bomb": (BOMB, "aliases expanded"),
    "recursive": ("a: &a [*a]\n", "no anchor"),
    "deep": ("[" * 200_000, "nested deeper"),
    "deep mappings": ("a: {" * 200_000, "nested deeper"),
    "unclosed": ("a: [1, 2\nb: 3\n", "not valid YAML"),
    "tab": ("a:\n\tb: 1\n", "not valid YAML"),
    "twice": ("a: 1\na: 2\n", "stands twice"),
    "template": ("a: {{ .Values.b }}\n", ":1:"),
    "control": ("a: \x00\n", "not valid YAML"),
    "many": ("- 1\n" * 450_000, "more than 400,000"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_yaml_is_refused_with_its_place(name: str) -> None:
    text, said = HOSTILE[name]
    with pytest.raises(YamlRefused, match=r"f\.yaml") as error:
        read_text(text, "f.yaml")
    assert said in str(error.value)


def within_2_gib() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))


def test_the_command_stays_small_on_bombs_and_huge_files(tmp_path: Path) -> None:
    """Each in a process of its own: exit code 2 and a message, in 2 GiB of address space."""
    (tmp_path / "bomb.yaml").write_text(BOMB)
    (tmp_path / "deep.yaml").write_text("[" * 1_000_000)
    (tmp_path / "huge.yaml").write_bytes(b"#" * (MAX_BYTES + 1))
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    for file in sorted(tmp_path.iterdir()):
        argv = [sys.executable, "-m", "flows.cli", "coherence", str(file)]
        done = subprocess.run(
            argv, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False, preexec_fn=within_2_gib
        )
        assert done.returncode == 2 and str(file) in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_values_are_merged_as_helm_does() -> None:
    base = {"a": {"b": 1, "c": [1, 2]}, "d": 4}
    assert merge_values(base, {"a": {"c": [3], "e": None}, "d": None}) == {"a": {"b": 1, "c": [3]}}
    assert base == {"a": {"b": 1, "c": [1, 2]}, "d": 4}


def test_a_later_layer_of_values_wins(tmp_path: Path) -> None:
    files = coherent()
    files["zz-overlay.yaml"] = [{"proxy_config": {"router_settings": {"timeout": 300}}}]
    assert "router-route" in rules_of(checked(tmp_path, files))


def test_an_argo_application_and_a_config_map_hold_values_too(tmp_path: Path) -> None:
    files = coherent()
    values = files.pop("values.yaml")[0]
    helm = {"valuesObject": values}
    application = {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Application",
        "metadata": {"name": "litellm"},
        "spec": {"source": {"helm": helm}},
    }
    assert checked(tmp_path / "a", {**files, "app.yaml": [application]}).findings == ()
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "c"},
        "data": {"config.yaml": yaml.safe_dump(values["proxy_config"])},
    }
    assert checked(tmp_path / "b", {**files, "map.yaml": [config]}).findings == ()


def test_policies_of_envoy_gateway_are_read(tmp_path: Path) -> None:
    """Without timeouts anywhere its default of 15 s holds; a BackendTrafficPolicy of 350 s mends it."""

    def without(handle: Handle) -> None:
        handle.rule.pop("timeouts")
        handle.manifests[5]["spec"]["gatewayClassName"] = "envoy-gateway"

    bare = checked(tmp_path / "bare", changed(without))
    assert {"implicit-route-timeout", "answer-cut"} <= rules_of(bare)

    def mended(handle: Handle) -> None:
        without(handle)
        target = [{"kind": "HTTPRoute", "name": "inner"}]
        handle.outer.update(request="850s")
        handle.add(
            "BackendTrafficPolicy",
            "limit",
            targetRefs=target,
            timeout={"http": {"requestTimeout": "350s", "streamIdleTimeout": "5m0s"}},
        )

    assert checked(tmp_path / "mended", changed(mended)).findings == ()


def test_a_suppression_needs_a_reason_and_ends(tmp_path: Path) -> None:
    def with_rule(**more: str) -> dict[str, object]:
        return {"rule": "no-pre-stop", "reason": "one replica only", "expires": "2026-12-31", **more}

    broken = changed(lambda h: (h.values.pop("lifecycle"), h.chain.update(suppress=[with_rule()])))
    kept = checked(tmp_path, broken)
    assert kept.findings == () and [each.finding.rule for each in kept.suppressed] == ["no-pre-stop"]
    late = check([tmp_path], date(2027, 1, 1))
    assert rules_of(late) == {"no-pre-stop", "suppression-expired"}
    for wrong in ({"reason": "why"}, {"expires": ""}, {"expires": "soon"}, {"rule": "no-such"}):
        broken["chain.yaml"][0]["suppress"] = [with_rule(**wrong)]
        with pytest.raises(InputInvalid, match="suppress"):
            checked(tmp_path, broken)


@pytest.mark.parametrize(
    "change",
    [
        lambda h: h.timeouts.update(request="soon"),
        lambda h: h.router.update(timeout="300s"),
        lambda h: h.router.update(num_retries=-1),
        lambda h: h.pod.update(terminationGracePeriodSeconds="long"),
        lambda h: h.inner["spec"].update(rules="none"),
        lambda h: h.pod.update(containers=[3]),
        lambda h: h.chain.update(clients=[{"total": "3s"}]),
        lambda h: h.chain.update(surprise=1),
        lambda h: h.figures.update(tokens_per_second=0),
        lambda h: h.config.update(model_list={"a": 1}),
    ],
)
def test_a_value_of_the_wrong_kind_is_named(change: object, tmp_path: Path) -> None:
    with pytest.raises((InputInvalid, DurationInvalid)) as error:
        checked(tmp_path, changed(change))  # type: ignore[arg-type]
    assert str(tmp_path) in str(error.value) or "Deployment/serving/llm" in str(error.value)


def test_unknown_kinds_and_lists_are_taken(tmp_path: Path) -> None:
    files = coherent()
    files["manifests.yaml"] = [
        {"apiVersion": "v1", "kind": "List", "items": files["manifests.yaml"]},
        {"apiVersion": "a/v1", "kind": "Unheard"},
    ]
    assert checked(tmp_path, files).findings == ()


def test_every_default_has_a_program_and_a_source() -> None:
    for name, row in rows().items():
        assert row["program"] and row["what"] and row["source"], name
        assert row["checked"] in ("read", "measured", "documented") or name == "route-backoff", name
        assert len({"seconds", "count", "text"} & set(row)) == 1, name


def test_a_thousand_manifests_are_read_in_time(tmp_path: Path) -> None:
    """A loose limit here; `make bench-coherence` has the asked one."""
    folder = written(tmp_path, coherent())
    for index in range(250):
        (tmp_path / f"more-{index}.yaml").write_text(
            (tmp_path / "manifests.yaml").read_text().replace("name: llm", f"name: llm{index}")
        )
    began = time.monotonic()
    assert len(check(folder, TODAY).inventory.objects) > 1700
    assert time.monotonic() - began < 20
