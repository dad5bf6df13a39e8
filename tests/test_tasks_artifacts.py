"""The values between stages survive Prefect's JSON serializer with type and equality: what is cached is what was made."""

from dataclasses import fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prefect.serializers import JSONSerializer

from tasks import artifacts

LEAVES: dict[Any, st.SearchStrategy[Any]] = {
    str: st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    int: st.integers(-(2**62), 2**62),
    float: st.floats(allow_nan=False, allow_infinity=False),
    bool: st.booleans(),
    NoneType: st.none(),
    Path: st.lists(st.text("abc é%", min_size=1, max_size=5), max_size=3).map(lambda parts: Path("/", *parts)),
    # GatePolicy refuses what makes no sense
    artifacts.GatePolicy: st.builds(
        artifacts.GatePolicy,
        alpha=st.floats(0.001, 0.5),
        floor=st.floats(0, 1, exclude_max=True),
        min_items=st.integers(2, 1000),
    ),
}


def values(kind: Any) -> st.SearchStrategy[Any]:
    """Any value of a type, read from its annotations."""
    if kind in LEAVES:
        return LEAVES[kind]
    if is_dataclass(kind) and isinstance(kind, type):
        hints = get_type_hints(kind)
        return st.builds(kind, **{field.name: values(hints[field.name]) for field in fields(kind)})
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin in (Union, UnionType):
        return st.one_of(*map(values, arguments))
    if origin is dict and arguments[0] is str:  # what JSON calls an object
        return st.dictionaries(values(str), values(arguments[1]), max_size=2)
    assert origin is tuple, f"{kind} does not survive JSON with its type"
    if arguments[1:] == (...,):
        return st.lists(values(arguments[0]), max_size=2).map(tuple)
    return st.tuples(*map(values, arguments))


@pytest.mark.parametrize("name", artifacts.__all__)
@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(data=st.data())
def test_a_value_comes_back_as_it_was(name: str, data: st.DataObject) -> None:
    value = data.draw(values(getattr(artifacts, name)))
    serializer = JSONSerializer()
    back = serializer.loads(serializer.dumps(value))
    assert type(back) is type(value)
    assert back == value
    assert repr(back) == repr(value)  # equality alone takes 1 for 1.0 and for True


def test_splits_are_found_by_name() -> None:
    train = artifacts.Split("train", Path("train.jsonl"), "a" * 64, 3)
    dataset = artifacts.Dataset("tickets", "r", (train,))
    assert dataset.split("train") is dataset.find("train") is train
    assert dataset.find("test") is None
    with pytest.raises(KeyError, match="the dataset tickets has no split test"):
        dataset.split("test")
