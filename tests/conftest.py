"""The fixture plugins of the suite, one a service, and how its property tests run."""

from hypothesis import settings

pytest_plugins = ("tests.fix_postgres", "tests.fix_rag")

settings.register_profile("liftlock", deadline=None)  # a busy machine is slow, not wrong
settings.load_profile("liftlock")
