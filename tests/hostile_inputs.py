"""Input that nobody should give, drawn with a seed: arguments for every command, files, and changes of good files."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BOMB = "a: &a [x,x,x,x,x,x,x,x]\n" + "".join(
    f"{one}: &{one} [{','.join([f'*{before}'] * 8)}]\n" for before, one in zip("abcdefgh", "bcdefghi", strict=True)
)
PICKLE = b"cos\nsystem\n(S'touch PWNED'\ntR."  # runs the command when it is unpickled
FILES = {
    "empty": b"", "bytes": bytes(range(256)) * 4, "zeros": bytes(5000), "utf16": "a: b".encode("utf-16"),
    "deep.json": b"[" * 3000, "scalar.json": b"3", "list.json": b'[1,null,"x"]', "nan.json": b'{"a": NaN, "b": 1e999}',
    "object.json": b'{"a": {"b": []}}', "half.json": b'{"\\ud800": "\\udfff"}', "bomb.yaml": BOMB.encode(),
    "code.yaml": b'!!python/object/apply:os.system ["touch PWNED"]', "tabs.yaml": b"\ta:\n\t- b", "twice.yaml": b"a: 1\na: 2\n",
    "cycle.yaml": b"&a [*a]", "long.yaml": b"a: " + b"9" * 6000, "latin.jsonl": b'{"a": "\xff\xfe"}\n',
    "rows.jsonl": b'{"id": "1", "score": 1}\n{"id": "1", "score": "x"}\n[]\n', "cut.parquet": b"PAR1" + bytes(20),
    "weights.safetensors": b"\xff" * 8 + b"{}", "weights.bin": PICKLE, "pem.pub": b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
    "x.xml": b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>', "x.pdf": b"%PDF-1.7\ngarbage", "vllm.log": b"INFO vllm\n" * 9,
}  # fmt: skip
PATHS = [
    "missing",
    "folder",
    "loop",
    "dangling",
    "model",
    "layout",
    "empty/x",
    "x" * 300,
    "new\nline",
    "\udcff",
    "",
    ".",
    "/dev/null",
    *FILES,
]
TEXTS = [
    "", " ", "-", "--", "..", "../../etc/passwd", "a/b", "%s", "{}", "a\nb", "\udcff", "💥", "x" * 5000, "nan", "-1", "0", "9" * 400, "http://",
    "http://[::1", "http://127.0.0.1:99999", "file:///etc/passwd", "oci:", "oci:x:y", "oci:layout:v1", f"oci:layout@sha256:{'0' * 64}",
    "127.0.0.1:1/a:b", "@", "name@", "name@champion", "name/1", "name/", "pkcs11:", "pkcs11:token=x", "awskms://", "None", "HEAD", ":", "a=b", "=",
    "1e400s", "-5s", "nvidia-l4", "gitops", "champion", "\\", "$(touch PWNED)", "`touch PWNED`", "; touch PWNED", "--upload-pack=touch PWNED",
]  # fmt: skip
NUMBERS = ["-1", "0", "1", "9" * 23, "nan", "inf", "-inf", "1e-300", "1e308", "x", "", "0x10", "0.5", "4096"]
TOKENS = [
    b"[", b"{", b"}", b'"', b"\xff", b"\0", b"9" * 5000, b"null", b"true", b"-1", b"1e999", b"NaN", b"[]", b"{}", b'"x"', b"\\ud800", b"2001-99-99",
    b"&a [*a]", b"*a", b"<<: *a", b"!!python/object/apply:os.system [x]", b"../../etc/passwd", b"[" * 2000, b"\n", b": ", b"- ", b".inf", b"0x",
]  # fmt: skip


def arena(folder: Path) -> Path:
    """The files of FILES, and folders and links that are none of what a command wants."""
    for name, data in FILES.items():
        (folder / name).write_bytes(data)
    for name in ("folder", "model", "layout"):
        (folder / name).mkdir()
    for name, data in FILES.items():
        (folder / "folder" / name).write_bytes(data)
    (folder / "model" / "config.json").write_text('{"auto_map": {"AutoConfig": "evil.Evil"}}')
    (folder / "model" / "pytorch_model.bin").write_bytes(PICKLE)
    (folder / "layout" / "oci-layout").write_text("{}")
    (folder / "layout" / "index.json").write_text("[]")
    (folder / "loop").symlink_to("loop")
    (folder / "dangling").symlink_to("nowhere")
    return folder


def commands(node: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command that can be called, with the words that call it."""
    for name, inner in getattr(node, "commands", {}).items():
        yield from commands(inner, (*words, name))
    if not hasattr(node, "commands") or node.invoke_without_command:
        yield words, node


def arguments(command: Any, dice: random.Random) -> list[str]:
    """Some of its parameters with values of their kind that are wrong, and now and then one that it does not have."""
    found: list[str] = []
    for one in command.params:
        kind = str(one.type_descriptor.annotation) if hasattr(one, "type_descriptor") else "bool"
        if one.param_type_name == "argument":
            found += [_value(kind, dice) for _ in range(dice.choice([0, 1, 1, 1, 1, 1]))]
        elif one.name != "help" and dice.random() < (0.7 if one.required else 0.2):
            found += [dice.choice(one.opts), *([] if "bool" in kind else [_value(kind, dice)])]
    return found + ["--no-such-option"] * (dice.random() < 0.03)


def _value(kind: str, dice: random.Random) -> str:
    if dice.random() < 0.05:
        return dice.choice([*PATHS, *TEXTS, *NUMBERS])
    if "Path" in kind:
        return dice.choice(PATHS)
    if "int" in kind or "float" in kind:
        return dice.choice(NUMBERS)
    if "Literal" in kind:
        return dice.choice(["", "x", *re.findall(r"'([^']*)'", kind)])
    return dice.choice([*TEXTS, *PATHS[:10]])


def changed(data: bytes, dice: random.Random) -> bytes:
    """Cut, with bytes replaced, with a token put in, or with one value of its JSON replaced."""
    at, way = dice.randrange(len(data) + 1), dice.randrange(4)
    if way == 0:
        return data[:at]
    if way == 1:
        return data[:at] + dice.randbytes(dice.randint(1, 4)) + data[at + dice.randint(0, 4) :]
    if way == 2:
        return data[:at] + dice.choice(TOKENS) + data[at + dice.randint(0, 12) :]
    values = list(re.finditer(rb'"[^"\n]*"|\b\d[\d.]*\b|(?<=: )[^\n\[{"]+', data))
    if not values:
        return data[:at]
    one = dice.choice(values)
    return data[: one.start()] + dice.choice(TOKENS) + data[one.end() :]


def hostile_json(dice: random.Random, depth: int = 0) -> Any:
    kinds = 6 if depth < 3 else 4
    which = dice.randrange(kinds)
    if which == 4:
        return [hostile_json(dice, depth + 1) for _ in range(dice.randrange(4))]
    if which == 5:
        return {dice.choice(TEXTS): hostile_json(dice, depth + 1) for _ in range(dice.randrange(4))}
    return dice.choice([None, True, dice.choice(TEXTS), dice.choice([-1, 0, 2**70, 1e308]), json.dumps(dice.random())])
