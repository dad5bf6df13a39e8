"""What is written for Envoy: one route a name and path, weights that add up, and versions that follow the content."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.gateway import routes as gateway_routes
from serving.gateway.envoy import VERSION_HEADER, Split, clusters
from serving.gateway.listener import listeners
from serving.gateway.model import Endpoint, Json
from serving.gateway.parts import version_of
from serving.gateway.routes import PATHS, Table
from tests.fix_engine import BASE

VLLM_KEEP_ALIVE_SECONDS = 5  # VLLM_HTTP_TIMEOUT_KEEP_ALIVE
names = st.from_regex(r"[a-z][a-z0-9._-]{0,20}", fullmatch=True)
weights = st.integers(0, 100)
splits = st.lists(
    st.builds(Split, model=names, stable=names, candidate=names, weight=weights),
    max_size=5,
    unique_by=lambda s: s.model,
)


def routes(splits: list[Split], base_model: str) -> Json:
    return gateway_routes.routes(Table(splits, base_model))


def table(found: dict[str, Any]) -> list[dict[str, Any]]:
    routes: list[dict[str, Any]] = found["resources"][0]["virtual_hosts"][0]["routes"]
    return routes


def routed(found: dict[str, Any], model: str, path: str) -> dict[str, Any]:
    """The first route that matches, as Envoy reads the table."""
    for route in table(found):
        match = route["match"]
        asked = [header["string_match"]["exact"] for header in match.get("headers", [])]
        if (match.get("path") == path and asked in ([], [model])) or match.get("prefix") == "/":
            return route
    raise AssertionError("no route matches")


def test_the_weights_of_a_split_are_stable_and_candidate() -> None:
    found = routes([Split("tickets", "tickets-1", "tickets-2", 10)], BASE)
    for path in PATHS:
        stable, candidate = routed(found, "tickets", path)["route"]["weighted_clusters"]["clusters"]
        assert (stable["name"], stable["weight"]) == ("tickets-stable", 90)
        assert (candidate["name"], candidate["weight"]) == ("tickets-candidate", 10)
        for side, version in ((stable, "tickets-1"), (candidate, "tickets-2")):
            assert side["response_headers_to_add"][0]["header"] == {"key": VERSION_HEADER, "value": version}
            assert side["typed_per_filter_config"]["rewrite-model"]["filter_context"] == {"model": version}


def test_without_a_candidate_stable_has_it_all() -> None:
    found = routes([Split("tickets", "tickets-1")], BASE)
    (side,) = routed(found, "tickets", PATHS[0])["route"]["weighted_clusters"]["clusters"]
    assert (side["name"], side["weight"]) == ("tickets-stable", 100)


@settings(max_examples=50)
@given(splits, names, st.sampled_from(PATHS))
def test_every_name_finds_its_own_route(every: list[Split], other: str, path: str) -> None:
    found = routes(every, BASE)
    for split in every:
        sides = routed(found, split.model, path)["route"]["weighted_clusters"]["clusters"]
        assert sum(side["weight"] for side in sides) == 100
        assert {side["name"] for side in sides} <= {one["name"] for one in clusters("http://h:1", [split])["resources"]}
    assert routed(found, BASE, path)["route"]["cluster"] == "engine"
    if other not in {BASE, *(split.model for split in every)}:
        assert routed(found, other, path)["direct_response"]["status"] == 404


@settings(max_examples=50)
@given(splits)
def test_the_listing_names_the_public_models_alone(every: list[Split]) -> None:
    listing = json.loads(table(routes(every, BASE))[0]["direct_response"]["body"]["inline_string"])
    assert [card["id"] for card in listing["data"]] == [*(split.model for split in every), BASE]


@settings(max_examples=50)
@given(splits, splits)
def test_equal_content_has_an_equal_version_and_other_content_another(one: list[Split], other: list[Split]) -> None:
    assert version_of(routes(one, BASE)) == version_of(routes([Split(**vars(split)) for split in one], BASE))
    assert (version_of(routes(one, BASE)) == version_of(routes(other, BASE))) == (one == other)


def test_a_weight_changes_the_routes_and_not_the_clusters() -> None:
    before, after = Split("tickets", "tickets-1", "tickets-2", 10), Split("tickets", "tickets-1", "tickets-2", 50)
    assert version_of(routes([before], BASE)) != version_of(routes([after], BASE))
    assert clusters("http://127.0.0.1:8000", [before]) == clusters("http://127.0.0.1:8000", [after])


@pytest.mark.parametrize(("candidate", "weight"), [(None, 1), (None, 100), ("tickets-2", -1), ("tickets-2", 101)])
def test_a_weight_that_nothing_can_take_is_refused(candidate: str | None, weight: int) -> None:
    with pytest.raises(ValueError, match=f"tickets: weight {weight} needs a candidate and 0 to 100 percent"):
        Split("tickets", "tickets-1", candidate, weight)


@pytest.mark.parametrize("name", ["", 'a"b', "a\nb", "a b", "a%sb", "ä", "a" * 201, 'a" .. os.exit() .. "'])
@pytest.mark.parametrize("part", ["model", "stable", "candidate"])
def test_a_name_that_could_break_out_of_lua_or_a_header_is_refused(part: str, name: str) -> None:
    with pytest.raises(ValueError, match="only letters, digits"):
        replace(Split("tickets", "tickets-1"), **{part: name})  # type: ignore[arg-type]


def test_idle_connections_close_before_the_engine_closes_them() -> None:
    """A request that meets the engine's closing of an idle connection would fail, and cannot be retried safely."""
    for cluster in clusters("http://127.0.0.1:8000", [Split("tickets", "t-1")])["resources"]:
        (options,) = cluster["typed_extension_protocol_options"].values()
        idle = options["common_http_protocol_options"]["idle_timeout"]
        assert 0 < float(idle.removesuffix("s")) < VLLM_KEEP_ALIVE_SECONDS


def test_the_engine_of_every_cluster_is_the_one_that_was_named() -> None:
    for cluster in clusters("http://10.0.0.7:8123", [Split("tickets", "t-1")])["resources"]:
        (endpoint,) = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
        assert endpoint["endpoint"]["address"]["socket_address"] == {"address": "10.0.0.7", "port_value": 8123}


def test_the_listener_is_on_loopback_and_asks_who_it_is_first(tmp_path: Any) -> None:
    (listener,) = listeners(tmp_path, 8080)["resources"]
    assert listener["address"]["socket_address"] == {"address": "127.0.0.1", "port_value": 8080}
    filters = listener["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"]
    assert [one["name"] for one in filters] == ["front", "limit", "rewrite-model", "router"]


def test_a_name_that_an_endpoint_repeats_is_listed_once() -> None:
    again = (Endpoint("Base-1B", "http://127.0.0.1:1"), Endpoint("more", "http://127.0.0.1:2"))
    assert Table([Split("tickets", "tickets-1")], "Base-1B", endpoints=again).names == ["tickets", "Base-1B", "more"]
