"""From one record to the next: who is beside whom at which weight, and what the one engine of strategy adapter is restarted by."""

from dataclasses import replace

import pytest
import yaml

from serving.delivery.record import RECORD, Record, RecordUnread, files_of, from_text, to_text
from serving.delivery.steps import beside, brought_back, member_called, promoted, weighed, without_candidate, word_of
from serving.manifests.model import Desired, Form
from tests.fix_rendered import adapter_member, desired, member


def pools(version: str = "2") -> Desired:
    return desired(stable=None, candidate=member(version), weight=0, form="deployment")


def adapters(version: str = "2", form: Form = "deployment") -> Desired:
    candidate = adapter_member(version, car=version)
    return desired(stable=None, candidate=candidate, weight=0, strategy="adapter", form=form)


def served(release: Desired) -> Record:
    """As after its first release."""
    return promoted(beside(release, None, 0))


def versions(record: Record | None) -> list[tuple[str, int]]:
    assert record
    return [(each.version, record.desired.share_of(each)) for each in record.desired.members]


def test_a_release_from_its_first_step_to_the_last() -> None:
    record = served(pools("1"))
    assert versions(record) == [("1", 100)] and record.previous is None
    placed = beside(pools("2"), record, 0)
    assert versions(placed) == [("1", 100), ("2", 0)]
    assert versions(weighed(placed, 50)) == [("1", 50), ("2", 50)]
    done = promoted(weighed(placed, 100))
    assert versions(done) == [("2", 100)] and done.previous == member("1")


def test_an_undo_keeps_stable_and_what_was_before_it() -> None:
    record = replace(served(pools("1")), previous=member("0"))
    assert without_candidate(weighed(beside(pools("2"), record, 0), 0)) == record


def test_a_first_release_that_is_undone_leaves_nothing() -> None:
    assert without_candidate(beside(pools("1"), None, 0)) is None
    assert list(files_of(None)) == [".gitkeep"]


def test_an_earlier_version_comes_back_beside_the_one_that_keeps_the_traffic() -> None:
    done = promoted(weighed(beside(pools("2"), served(pools("1")), 0), 100))
    earlier = member_called(done, "ticket-router-v1")
    assert earlier
    back = brought_back(done, earlier)
    assert versions(back) == [("1", 0), ("2", 100)]
    assert versions(without_candidate(weighed(back, 0))) == [("1", 100)]


def engine(record: Record) -> object:
    """What restarts the engine where it changes."""
    spec = yaml.safe_load(files_of(record)["ticket-router/workload.yaml"])["spec"]
    return spec.get("predictor") or spec["template"]


@pytest.mark.parametrize("form", ["deployment", "inferenceservice"])
def test_one_engine_restarts_when_the_candidate_is_placed_and_never_again(form: Form) -> None:
    first = served(adapters("1", form))
    placed = beside(adapters("2", form), first, 0)
    assert engine(placed) != engine(first)
    up = [weighed(placed, 10), weighed(placed, 100), promoted(weighed(placed, 100))]
    down = [without_candidate(weighed(placed, 0))]
    assert all(record and engine(record) == engine(placed) for record in [*up, *down])


def test_the_next_release_drops_the_adapters_of_the_last_one() -> None:
    second = promoted(weighed(beside(adapters("2"), served(adapters("1")), 0), 100))
    assert [each.name for each in second.desired.idle_adapters] == ["ticket-router-v1"]
    third = beside(adapters("3"), second, 0)
    assert third.desired.idle_adapters == ()
    assert "ticket-router-v1=" not in str(engine(third)) and "ticket-router-v2=" in str(engine(third))


def test_an_undone_promotion_on_one_engine_restarts_nothing_either() -> None:
    placed = beside(adapters("2"), served(adapters("1")), 0)
    done = promoted(weighed(placed, 100))
    earlier = member_called(done, "ticket-router-v1")
    assert earlier and word_of(done.desired, earlier) == "ticket-router-v1"
    back = brought_back(done, earlier)
    assert engine(back) == engine(placed)
    assert versions(back) == [("1", 0), ("2", 100)]


def test_a_record_is_read_as_it_was_written_and_anything_else_is_refused() -> None:
    record = weighed(beside(adapters("2"), served(adapters("1")), 0), 10)
    assert from_text(to_text(record)) == record
    assert files_of(from_text(to_text(record))) == files_of(record)  # whole seconds are read as 10.0
    with pytest.raises(RecordUnread, match=RECORD):
        from_text('{"desired": {"model": "x"}}')
    with pytest.raises(RecordUnread):
        from_text("weights: 3")
