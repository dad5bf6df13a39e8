"""One way to a cluster: what has no address, no answer or no right is the same exception for every command, with its exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from serving.delivery.kube_api import KubeApi, patiently
from serving.kube.connect import NoCluster, connect, refusal
from tests.fix_api_server import ApiServer
from tests.fix_envoy import free_ports
from tests.fix_rendered import ROOT


def kubeconfig(folder: Path, url: str) -> Path:
    path = folder / "kubeconfig"
    path.write_text(json.dumps({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": url, "insecure-skip-tls-verify": True}}],
        "users": [{"name": "u", "user": {"token": "unknown"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    }))  # fmt: skip
    return path


ASK = """
import json
from serving.cluster_doctor.expected import expected
from serving.cluster_doctor.read import open_api, read_cluster
from serving.delivery.kube_api import KubeApi
from tasks.cluster import hold_to_cluster
from tasks.exit_codes import code_of
from tests.fix_rendered import desired
said = []
for ask in (
    lambda: KubeApi().call("get", "/api/v1/namespaces"),
    lambda: hold_to_cluster(desired()),
    lambda: read_cluster(open_api(None, None), expected("generic")),
):
    try:
        ask()
    except Exception as error:
        said.append([type(error).__name__, code_of(error), str(error)])
print(json.dumps(said))
"""


def asked(file: Path) -> list[list[Any]]:
    """What `deliver`, `render --cluster` and `doctor --cluster` say, in a process of its own: the client reads KUBECONFIG once."""
    environment = {**os.environ, "KUBECONFIG": str(file), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", ASK], env=environment, capture_output=True, text=True, check=True)
    said: list[list[Any]] = json.loads(done.stdout)
    assert len(said) == 3
    return said


def test_every_command_says_the_same_of_a_cluster_that_is_not_there(tmp_path: Path) -> None:
    for name, code, message in asked(tmp_path / "none"):
        assert (name, code) == ("NoCluster", 2) and "; set KUBECONFIG" in message
    (port,) = free_ports(1)
    for name, code, message in asked(kubeconfig(tmp_path, f"http://127.0.0.1:{port}")):
        assert (name, code) == ("ClusterUnreachable", 2) and f"http://127.0.0.1:{port} does not answer" in message


def test_a_user_that_the_api_server_does_not_know_is_refused_in_its_words(
    tmp_path: Path, api_server: ApiServer
) -> None:
    for name, code, message in asked(kubeconfig(tmp_path, str(api_server.client.base_url).rstrip("/"))):
        assert (name, code) == ("ClusterRefused", 2) and "Unauthorized" in message


def test_a_context_that_the_kubeconfig_lacks_is_named(tmp_path: Path) -> None:
    with pytest.raises(NoCluster, match="another"):
        connect("another", str(kubeconfig(tmp_path, "http://127.0.0.1:1")))


def test_what_asks_again_does_not_where_there_is_no_cluster(tmp_path: Path) -> None:
    """It would wait for an hour."""
    with pytest.raises(NoCluster):
        patiently(lambda: KubeApi(kubeconfig=str(tmp_path / "none")).call("get", "/version"), 3600)


def test_an_answer_that_is_no_status_is_told_by_its_reason() -> None:
    assert str(refusal("GET /x", 502, "<html>", "Bad Gateway")) == "GET /x: Bad Gateway"
    assert str(refusal("GET /x", 403, '["a"]', "Forbidden")) == "GET /x: Forbidden"
