"""What no push can beat, for bench_modelcar.py: reading and hashing the bytes once, and copying them over loopback.

Usage: modelcar_limits.py receive FILE: prints its port, takes one connection, and writes what comes to the file.
"""

import hashlib
import socket
import subprocess
import sys
import time
from pathlib import Path

CHUNK = 1 << 20


def sha256_seconds(files: list[Path]) -> float:
    """One pass over all files by one core."""
    began, buffer = time.perf_counter(), memoryview(bytearray(CHUNK))
    for path in files:
        hasher = hashlib.sha256()
        with path.open("rb", buffering=0) as file:
            while count := file.readinto(buffer):
                hasher.update(buffer[:count])
    return time.perf_counter() - began


def copy_seconds(files: list[Path], destination: Path) -> float:
    """The bytes through one TCP connection on loopback into a file on the registry's disk, by another process."""
    command = [sys.executable, __file__, "receive", str(destination)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as receiver:
        port = int(receiver.stdout.readline())  # type: ignore[union-attr]
        buffer = memoryview(bytearray(CHUNK))
        with socket.create_connection(("127.0.0.1", port)) as connection:
            began = time.perf_counter()
            for path in files:
                with path.open("rb", buffering=0) as file:
                    while count := file.readinto(buffer):
                        connection.sendall(buffer[:count])
            connection.shutdown(socket.SHUT_WR)
            connection.recv(1)
            seconds = time.perf_counter() - began
    destination.unlink()
    return seconds


def receive(destination: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, destination.open("wb", buffering=0) as file:
        print(server.getsockname()[1], flush=True)
        connection, _ = server.accept()
        buffer = memoryview(bytearray(CHUNK))
        with connection:
            while count := connection.recv_into(buffer):
                file.write(buffer[:count])
            connection.sendall(b".")


if __name__ == "__main__":
    receive(Path(sys.argv[2]))
