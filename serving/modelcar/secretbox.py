"""NaCl's secretbox (XSalsa20 and Poly1305), which protects the private key inside a cosign key file.

It is written out because `cryptography`, which Liftlock has, offers Poly1305 and no Salsa20, and a key is 138 bytes:
speed does not matter here. Sources: D. J. Bernstein, "Extending the Salsa20 nonce" (2011), and "Salsa20
specification" (2005). The key derivation and the file's JSON are in keys.py.
"""

import secrets
import struct

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.poly1305 import Poly1305

KEY_BYTES = 32
NONCE_BYTES = 24
_TAG_BYTES = 16
_SIGMA = struct.unpack("<4I", b"expand 32-byte k")
_MASK = 0xFFFFFFFF
# Salsa20's quarter rounds: a column round, then a row round ("Salsa20 specification", sections 4 and 5).
_QUARTERS = (
    (0, 4, 8, 12), (5, 9, 13, 1), (10, 14, 2, 6), (15, 3, 7, 11),
    (0, 1, 2, 3), (5, 6, 7, 4), (10, 11, 8, 9), (15, 12, 13, 14),
)  # fmt: skip
_HSALSA_WORDS = (0, 5, 10, 15, 6, 7, 8, 9)


class BoxInvalid(ValueError):
    """The box was not sealed with this key, or its bytes were changed."""


def seal(key: bytes, message: bytes) -> tuple[bytes, bytes]:
    """A fresh nonce of 24 bytes, and the box: 16 bytes of authenticator before as many bytes as the message has."""
    nonce = secrets.token_bytes(NONCE_BYTES)
    stream = _xsalsa20(key, nonce, 32 + len(message))
    hidden = _xor(message, stream[32:])
    return nonce, Poly1305.generate_tag(stream[:32], hidden) + hidden


def unseal(key: bytes, nonce: bytes, box: bytes) -> bytes:
    """The message. Raises BoxInvalid."""
    if len(key) != KEY_BYTES or len(nonce) != NONCE_BYTES or len(box) < _TAG_BYTES:
        raise BoxInvalid(f"a key of {len(key)}, a nonce of {len(nonce)} and a box of {len(box)} bytes are no secretbox")
    tag, hidden = box[:_TAG_BYTES], box[_TAG_BYTES:]
    stream = _xsalsa20(key, nonce, 32 + len(hidden))
    try:
        Poly1305.verify_tag(stream[:32], hidden, tag)
    except InvalidSignature as error:
        raise BoxInvalid("the box does not open with this key") from error
    return _xor(hidden, stream[32:])


def _xor(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=True))


def _xsalsa20(key: bytes, nonce: bytes, length: int) -> bytes:
    """The key stream of `length` bytes."""
    first = _doubled_rounds(_state(key, struct.unpack("<4I", nonce[:16])))
    subkey = struct.pack("<8I", *(first[word] for word in _HSALSA_WORDS))
    blocks = []
    for counter in range(-(-length // 64)):
        state = _state(subkey, (*struct.unpack("<2I", nonce[16:]), counter & _MASK, counter >> 32))
        mixed = _doubled_rounds(state)
        blocks.append(struct.pack("<16I", *((a + b) & _MASK for a, b in zip(mixed, state, strict=True))))
    return b"".join(blocks)[:length]


def _state(key: bytes, middle: tuple[int, ...]) -> list[int]:
    words = struct.unpack("<8I", key)
    return [_SIGMA[0], *words[:4], _SIGMA[1], *middle, _SIGMA[2], *words[4:], _SIGMA[3]]


def _doubled_rounds(state: list[int]) -> list[int]:
    """Twenty rounds, without the final addition of the state."""
    x = list(state)
    for _ in range(10):
        for a, b, c, d in _QUARTERS:
            x[b] ^= _rotated(x[a] + x[d], 7)
            x[c] ^= _rotated(x[b] + x[a], 9)
            x[d] ^= _rotated(x[c] + x[b], 13)
            x[a] ^= _rotated(x[d] + x[c], 18)
    return x


def _rotated(value: int, places: int) -> int:
    value &= _MASK
    return (value << places | value >> (32 - places)) & _MASK
