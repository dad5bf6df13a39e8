"""Ports that stay the same as long as they can."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tasks.stack.ports import assign, is_free, remembered

NAMES = ("postgres", "mlflow", "prefect", "vllm", "envoy")


@contextmanager
def taken(port: int) -> Iterator[None]:
    """Somebody listens there."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", port))
        other.listen()
        yield


def test_every_name_has_a_free_port_of_its_own(tmp_path: Path) -> None:
    ports = assign(tmp_path, NAMES)
    assert tuple(ports) == NAMES
    assert len(set(ports.values())) == len(NAMES)
    assert all(1024 < port < 65536 and is_free(port) for port in ports.values())


def test_ports_are_remembered(tmp_path: Path) -> None:
    assert remembered(tmp_path) == {}
    ports = assign(tmp_path, NAMES)
    assert remembered(tmp_path) == ports
    assert assign(tmp_path, NAMES) == ports
    assert assign(tmp_path, NAMES[:2]) == {name: ports[name] for name in NAMES[:2]}
    assert remembered(tmp_path) == ports
    assert [file.name for file in tmp_path.iterdir()] == ["ports.json"]


def test_a_port_that_somebody_took_is_replaced_and_no_other(tmp_path: Path) -> None:
    before = assign(tmp_path, NAMES)
    with taken(before["mlflow"]):
        assert not is_free(before["mlflow"])
        after = assign(tmp_path, NAMES)
    assert after["mlflow"] not in before.values()
    assert {**after, "mlflow": 0} == {**before, "mlflow": 0}
    assert assign(tmp_path, NAMES) == after


def test_a_port_that_our_own_part_uses_is_kept(tmp_path: Path) -> None:
    before = assign(tmp_path, NAMES)
    with taken(before["vllm"]):
        assert assign(tmp_path, NAMES, in_use=["vllm"]) == before


def test_a_new_part_gets_a_port_and_the_others_keep_theirs(tmp_path: Path) -> None:
    before = assign(tmp_path, NAMES)
    after = assign(tmp_path, (*NAMES, "registry"))
    assert {name: after[name] for name in NAMES} == before
    assert after["registry"] not in before.values()


def test_a_closed_connection_does_not_keep_a_port(tmp_path: Path) -> None:
    """After `down` the kernel still waits on old connections; the address must survive."""
    port = assign(tmp_path, ["envoy"])["envoy"]
    with socket.create_server(("127.0.0.1", port)) as server:
        client = socket.create_connection(("127.0.0.1", port))
        accepted, _ = server.accept()
        accepted.close()  # closes first: this side waits
        client.close()
    assert assign(tmp_path, ["envoy"]) == {"envoy": port}
