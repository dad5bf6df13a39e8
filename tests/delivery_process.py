"""A delivery in a process of its own, for tests that kill it: python -m tests.delivery_process ASKED_JSON. Not a test."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from serving.delivery.apply_effect import ApplyEffect
from serving.delivery.argocd_wait import ArgoCd
from serving.delivery.conflicts import Conflict
from serving.delivery.drawn import DrawnTraffic, await_answer
from serving.delivery.effect import Effect
from serving.delivery.git_effect import GitEffect
from serving.delivery.kube_api import KubeApi
from serving.delivery.push import Push
from serving.delivery.repository import Remote, Repository
from serving.delivery.steps import word_of
from serving.delivery.story import story
from serving.delivery.target import NOTHING, ClusterTarget
from serving.manifests.model import Desired, Resources
from serving.rollout.analysis import AnalysisPolicy
from serving.rollout.kept import Rollouts
from serving.rollout.model import Rollout
from serving.rollout.plan import Plan
from serving.rollout.steps import roll_out
from tests.fix_rendered import desired, member

PROMPTS = tuple([{"role": "user", "content": f"ticket {number}"}] for number in range(5))
WEIGHTS = (50, 100)
POLICY = AnalysisPolicy(min_requests=12, max_error_rate=0.0, max_first_token_ratio=20, steps=2)
MODEL = "ticket-router"
ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Asked:
    """`repository` empty: target kubernetes. `gpus` of the candidate."""

    namespace: str
    gateway: str
    state: str
    repository: str = ""
    version: str = "1"
    gpus: int = 1
    seconds: float = 45
    kubeconfig: str = ""


def candidate(asked: Asked) -> Desired:
    modelcar = f"registry.example.com/models/ticket-router@sha256:{(asked.version * 64)[:64]}"
    sized = member(asked.version, modelcar=modelcar, resources=Resources(gpus=asked.gpus))
    return desired(namespace=asked.namespace, form="deployment", stable=None, candidate=sized, weight=0)


def effect_of(asked: Asked, conflicts: list[Conflict]) -> Effect:
    api = KubeApi(kubeconfig=asked.kubeconfig)
    if not asked.repository:
        return ApplyEffect(api, asked.namespace, MODEL, asked.seconds, conflicts.append)
    repository = Repository(Path(asked.state) / "clone", Remote(asked.repository))
    argocd = ArgoCd(api, asked.namespace, "argocd", asked.namespace, asked.seconds)
    return GitEffect(repository, f"models/{MODEL}", Push(), argocd)


def target_of(asked: Asked, conflicts: list[Conflict] | None = None) -> ClusterTarget:
    def answers(version: str) -> None:
        await_answer(asked.gateway, version, {}, 20)

    rollouts = Rollouts(Path(asked.state) / "rollouts")
    effect = effect_of(asked, [] if conflicts is None else conflicts)
    return ClusterTarget(effect, candidate(asked), lambda: story(rollouts), answers)


def release(asked: Asked, target: ClusterTarget | None = None) -> Rollout:
    target = target or target_of(asked)
    wanted = candidate(asked)
    assert wanted.candidate
    word = word_of(wanted, wanted.candidate)
    first = target.stable(MODEL) == NOTHING
    plan = Plan(
        MODEL, word, wanted.candidate.modelcar, asked.gateway, PROMPTS, (100,) if first else WEIGHTS, 2, POLICY,
        hold_seconds=120, target="gitops" if asked.repository else "kubernetes",
    )  # fmt: skip
    traffic = DrawnTraffic(asked.gateway, target.stable(MODEL), word, PROMPTS, rate=40)
    return roll_out(Rollouts(Path(asked.state) / "rollouts"), plan, target, traffic, lambda _: None)


def to_argument(asked: Asked) -> str:
    return json.dumps(asdict(asked))


def killed_when(asked: Asked, is_time: Callable[[], bool]) -> bool:
    """A process of its own, killed as soon as it is time; whether it had ended by itself."""
    argv = [sys.executable, "-m", "tests.delivery_process", to_argument(asked)]
    process = subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 90
    while not is_time() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    return process.wait() == 0


def kill_in_every_phase(asked: Asked) -> set[str]:
    """Started again and again until it ends; each phase that it comes to kills it once. The phases in which it was killed."""
    killed: set[str] = set()
    rollouts = Rollouts(Path(asked.state) / "rollouts")
    before = len(rollouts.all())

    def new_phase() -> bool:
        states = rollouts.all()
        return len(states) > before and states[-1].state.phase not in {*killed, "completed", "undone"}

    for _ in range(12):
        if killed_when(asked, new_phase):
            return killed
        killed.add(rollouts.all()[-1].state.phase)
    raise AssertionError(f"not over: {killed}")


if __name__ == "__main__":
    print(release(Asked(**json.loads(sys.argv[1]))).outcome)
