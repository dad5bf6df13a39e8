"""Typed fields of config.json: each read is checked, and a bad one is named. Pure."""

from collections.abc import Mapping

from serving.fit.strict_json import is_int, shown

MAX_VALUE = 2**31 - 1
MAX_LAYERS = 4096
Config = Mapping[str, object]


class ConfigInvalid(Exception):
    """config.json is missing, is not JSON, or lacks a field that its architecture needs."""


class UnsupportedModel(Exception):
    """The model is of a kind whose memory is not modelled, so no verdict is given."""


def size(config: Config, *names: str, default: int | None = None, most: int = MAX_VALUE) -> int:
    """The first of the names that is there, from 1. Raises ConfigInvalid."""
    for name in names:
        value = config.get(name)
        if value is None:
            continue
        if not is_int(value) or not 0 < value <= most:
            raise invalid(name, shown(value), f"an integer from 1 to {most}")
        return value
    if default is None:
        raise invalid(names[0], "absent", f"an integer from 1 to {most}")
    return default


def count(config: Config, *names: str, default: int = 0) -> int:
    """Like size, but 0, null and absence say that the model has none of it."""
    present = [name for name in names if config.get(name) not in (None, 0)]
    return size(config, *present, default=default) if present else default


def flag(config: Config, name: str, default: bool = False) -> bool:
    value = config.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise invalid(name, shown(value), "true or false")
    return value


def number(config: Config, name: str, default: float) -> float:
    value = config.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e9:
        raise invalid(name, shown(value), "a number above 0")
    return float(value)


def section(config: Config, *names: str) -> Config | None:
    """The first nested object of these names; None where there is none."""
    for name in names:
        value = config.get(name)
        if value is None:
            continue
        if not isinstance(value, dict):
            raise invalid(name, shown(value), "an object or null")
        return value
    return None


def words(config: Config, name: str) -> tuple[str, ...] | None:
    value = config.get(name)
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise invalid(name, shown(value), "a list of words")
    return tuple(value)


def integers(config: Config, name: str) -> tuple[int, ...] | None:
    value = config.get(name)
    if value is None:
        return None
    if not isinstance(value, list) or not all(is_int(item) and 0 <= item <= MAX_VALUE for item in value):
        raise invalid(name, shown(value), "a list of integers from 0")
    return tuple(value)


def invalid(name: str, observed: str, required: str) -> ConfigInvalid:
    return ConfigInvalid(f"{name} is {observed} in config.json; required: {required}. Fix config.json.")


def unsupported(name: str, observed: str, required: str) -> UnsupportedModel:
    return UnsupportedModel(
        f"{name} is {observed} in config.json; the fit estimate models only {required}. "
        "Serve a model of a known family, or measure this one on the GPU."
    )
