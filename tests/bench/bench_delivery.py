"""Ten releases and ten rollbacks in a row on a real control plane, with somebody else who writes in between: python -m tests.bench.bench_delivery

Target gitops: Argo CD syncs from git daemon, a second writer pushes all the time. Target kubernetes: another field manager edits
all the time. A client asks the model from the first release to the last. Exit 1 where a request is lost, history is not linear, a
commit does not render what it holds, or another's field is lost. --short: two of each.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx

from serving.delivery.record import RECORD, files_of, from_text
from serving.rollout.ask import ask
from tests.bench.figures import Figure, end, flags
from tests.delivery_process import MODEL, PROMPTS, Asked, release, target_of
from tests.fix_cluster import Cluster, add_application, running_cluster, start_argocd
from tests.fix_platform import PlatformRepository, git, running_platform
from tests.fix_pods import running_gateway

REST_SECONDS = 1.0
MERGE = {"content-type": "application/merge-patch+json"}
CLIENT_RATE = 20


@dataclass
class Client:
    """Somebody who asks the model by its name, the whole time."""

    url: str
    asked: int = 0
    lost: list[str] = field(default_factory=list)

    @contextmanager
    def asking(self) -> Iterator[None]:
        stop = threading.Event()
        thread = threading.Thread(target=self._ask, args=(stop,))
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def _ask(self, stop: threading.Event) -> None:
        with httpx.Client(timeout=60) as client:
            while not stop.wait(1 / CLIENT_RATE):
                sample = ask(client, self.url, MODEL, PROMPTS[self.asked % len(PROMPTS)], "")
                self.asked += 1
                if not sample.ok:
                    self.lost.append(sample.error)


@contextmanager
def meanwhile(act: Callable[[int], None]) -> Iterator[None]:
    """Again and again while the block runs."""
    stop = threading.Event()

    def acting() -> None:
        number = 0
        while not stop.wait(REST_SECONDS):
            act(number)
            number += 1

    thread = threading.Thread(target=acting)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def roll_back(asked: Asked) -> None:
    """As `liftlock rollback` does: the earlier version beside, all requests, the other one goes."""
    target, word = target_of(asked), f"{MODEL}-v{asked.version}"
    target.place(MODEL, word)
    target.weigh(MODEL, word, 100)
    target.promote(MODEL, word)


def back_and_forth(asked: Asked, count: int) -> tuple[list[float], list[float]]:
    """Seconds of each release and of each rollback. Versions 2 and up; each goes back to version 1."""
    up, down = [], []
    for number in range(count):
        began = time.monotonic()
        done = release(replace(asked, version=str(number + 2)))
        assert done.outcome == "completed", done.reason
        up.append(time.monotonic() - began)
        began = time.monotonic()
        roll_back(replace(asked, version="1"))
        down.append(time.monotonic() - began)
    return up, down


def gitops(cluster: Cluster, folder: Path, count: int) -> dict[str, Any]:
    with ExitStack() as stack:
        platform = stack.enter_context(running_platform(folder))
        namespace = cluster.api.namespace({})
        add_application(cluster, platform.url, "models", namespace)
        url, _ = stack.enter_context(running_gateway(cluster.api, namespace, MODEL))
        asked = Asked(namespace, url, str(folder / "state"), platform.url, kubeconfig=str(cluster.kubeconfig))
        assert release(asked).outcome == "completed"
        client = Client(url)
        with client.asking(), meanwhile(lambda number: _push(platform, number)):
            up, down = back_and_forth(asked, count)
        return figures(client, up, down) | history(platform)


def _push(platform: PlatformRepository, number: int) -> None:
    try:
        platform.push_file(f"other/{number}.txt", "x\n", f"Other {number}")
    except Exception:  # noqa: BLE001 - it lost a race; the next one is new
        return


def history(platform: PlatformRepository) -> dict[str, Any]:
    """Every commit of Liftlock renders what it holds, and none is a merge."""
    commits = git(platform.bare, "log", "--reverse", "--format=%H %an", "main").splitlines()
    mine = [line.split()[0] for line in commits if line.endswith(" Liftlock")]
    bad = [commit for commit in mine if not _coherent(platform, commit)]
    return {
        "commits": len(mine),
        "others": len(commits) - len(mine),
        "merges": len(platform.merges().split()),
        "incoherent": len(bad),
    }


def _coherent(platform: PlatformRepository, commit: str) -> bool:
    folder = f"models/{MODEL}"
    paths = git(platform.bare, "ls-tree", "-r", "--name-only", commit, f"{folder}/").splitlines()
    held = {path.removeprefix(f"{folder}/"): git(platform.bare, "show", f"{commit}:{path}") for path in paths}
    wanted = files_of(from_text(held[RECORD]))
    return {path: text.strip() for path, text in wanted.items()} == {path: text.strip() for path, text in held.items()}


def kubernetes(cluster: Cluster, folder: Path, count: int) -> dict[str, Any]:
    namespace = cluster.api.namespace({})
    with running_gateway(cluster.api, namespace, MODEL) as (url, _):
        asked = Asked(namespace, url, str(folder / "state"), kubeconfig=str(cluster.kubeconfig))
        assert release(asked).outcome == "completed"
        client, path = (
            Client(url),
            f"/apis/gateway.networking.k8s.io/v1/namespaces/{namespace}/httproutes/{MODEL}-route",
        )

        def edit(number: int) -> None:
            note = {
                "metadata": {
                    "annotations": {"somebody/note": str(number)},
                    "labels": {"app.kubernetes.io/part-of": "theirs"},
                }
            }
            cluster.api.client.patch(path, json=note, params={"fieldManager": "somebody"}, headers=MERGE)

        with client.asking(), meanwhile(edit):
            up, down = back_and_forth(asked, count)
        roll_back(replace(asked, version="99"))
        found = cluster.get(path)["metadata"]
        kept = int("somebody/note" not in found["annotations"]) + int(
            found["labels"]["app.kubernetes.io/part-of"] != MODEL
        )
        return figures(client, up, down) | {"fields_lost": kept}


def figures(client: Client, up: list[float], down: list[float]) -> dict[str, Any]:
    return {
        "releases": len(up), "release_median_s": round(statistics.median(up), 1), "rollbacks": len(down),
        "rollback_median_s": round(statistics.median(down), 1), "requests": client.asked, "lost": len(client.lost),
        "first_lost": client.lost[:1],
    }  # fmt: skip


def main() -> int:
    short = flags(__doc__, "--short").short
    count = 2 if short else 10
    with tempfile.TemporaryDirectory() as text, ExitStack() as stack:
        folder = Path(text)
        for name in ("cluster", "gitops", "kubernetes"):
            (folder / name).mkdir()
        cluster = stack.enter_context(running_cluster(folder / "cluster", nodes=4))
        for definitions in ("gateway-api", "gateway-api-inference-extension", "prometheus-operator"):
            cluster.define(definitions)
        start_argocd(cluster)
        found = {
            "gitops": gitops(cluster, folder / "gitops", count),
            "kubernetes": kubernetes(cluster, folder / "kubernetes", count),
        }
    wrong = [
        Figure(f"{target}: {key.replace('_', ' ')}", each[key], "", "lower", 0)
        for target, each in found.items()
        for key in ("lost", "merges", "incoherent", "fields_lost")
        if key in each
    ]
    times = [
        Figure(f"{target}: {key.replace('_median_s', '')}, median", each[key], "s", noise=0.25)
        for target, each in found.items()
        for key in ("release_median_s", "rollback_median_s")
    ]
    return end("delivery", [*wrong, *times], short=short, details=found)


if __name__ == "__main__":
    sys.exit(main())
