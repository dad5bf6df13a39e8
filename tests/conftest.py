"""The fixture plugins of the suite, one a service, how its property tests run, and the order of its files."""

from math import inf
from pathlib import Path

import pytest
from hypothesis import settings

pytest_plugins = (
    "tests.fix_engine",
    "tests.fix_envoy",
    "tests.fix_api_server",
    "tests.fix_cluster",
    "tests.fix_complete_cluster",
    "tests.fix_controllers",
    "tests.fix_guarded_registry",
    "tests.fix_hostile_cli",
    "tests.fix_signing",
    "tests.fix_sigstore",
    "tests.fix_kyverno_registry",
    "tests.fix_mlflow",
    "tests.fix_platform",
    "tests.fix_postgres",
    "tests.fix_prefect",
    "tests.fix_promotion",
    "tests.fix_queued",
    "tests.fix_rag",
    "tests.fix_registry",
    "tests.fix_released",
    "tests.fix_rollout_scene",
    "tests.fix_stack",
    "tests.fix_surroundings",
    "tests.fix_tiny_training",
    "tests.fix_tokens",
    "tests.fix_training_pods",
)

settings.register_profile("liftlock", deadline=None)  # a busy machine is slow, not wrong
settings.load_profile("liftlock")

LONG_SECONDS = 60  # of a slow file that does not say how long it takes


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Fast files first, then the slow ones, the longest first: workers that take files in this order end together."""
    seconds: dict[Path, float] = {}
    for item in items:
        for mark in item.iter_markers("slow"):
            seconds[item.path] = max(seconds.get(item.path, 0), mark.kwargs.get("seconds", LONG_SECONDS))
    items.sort(key=lambda item: -seconds.get(item.path, inf))
