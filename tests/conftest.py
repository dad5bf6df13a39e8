"""The fixture plugins of the suite, one a service, and how its property tests run."""

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
