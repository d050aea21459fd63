"""Names of shards such that the engine spreads them evenly over its workers.

Bytewax gives a key to a worker by the key's hash alone, and a handful of shards may by chance all land on one worker
("detect-0" and "detect-1" do, with two of them). So a shard's name gets letters that make the hash come out right.
Should the engine hash in another way one day, results stay the same and only the spread becomes a matter of chance.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import count, product
from string import ascii_lowercase
from typing import Final

#: Spread evenly over any number of workers that divides this.
_WORKERS: Final = 12
_MASK: Final = 2**64 - 1


@lru_cache(maxsize=4_096)
def shard_name(stage: str, number: int, first_worker: int = 0) -> str:
    """The name of a shard: its stage, its number, and letters that put it on worker ``first_worker + number``.

    >>> name = shard_name("detect", 1)
    >>> name.startswith("detect-1"), [routing_hash(name) % workers for workers in (2, 3, 4, 6, 12)]
    (True, [1, 1, 1, 1, 1])
    """
    for length in count():
        for letters in product(ascii_lowercase, repeat=length):
            name = f"{stage}-{number}{''.join(letters)}"
            if routing_hash(name) % _WORKERS == (first_worker + number) % _WORKERS:
                return name
    raise AssertionError("unreachable: letters do not run out")


def routing_hash(key: str) -> int:
    """What Bytewax routes a key by: SipHash-1-3 with a zero key (Aumasson and Bernstein, 2012) over the text and 0xFF.

    That is how Rust's standard hasher sees a string; its worker is the hash modulo their number.
    """
    data = key.encode() + b"\xff"
    state = [0x736F6D6570736575, 0x646F72616E646F6D, 0x6C7967656E657261, 0x7465646279746573]
    whole = len(data) - len(data) % 8
    words = [int.from_bytes(data[at : at + 8], "little") for at in range(0, whole, 8)]
    words.append((len(data) & 0xFF) << 56 | int.from_bytes(data[whole:], "little"))
    for word in words:
        state[3] ^= word
        _round(state)
        state[0] ^= word
    state[2] ^= 0xFF
    for _ in range(3):
        _round(state)
    return state[0] ^ state[1] ^ state[2] ^ state[3]


def _round(state: list[int]) -> None:
    a, b, c, d = state
    a = (a + b) & _MASK
    b = _rotated(b, 13) ^ a
    a = _rotated(a, 32)
    c = (c + d) & _MASK
    d = _rotated(d, 16) ^ c
    a = (a + d) & _MASK
    d = _rotated(d, 21) ^ a
    c = (c + b) & _MASK
    b = _rotated(b, 17) ^ c
    state[:] = a, b, _rotated(c, 32), d


def _rotated(word: int, bits: int) -> int:
    return (word << bits | word >> (64 - bits)) & _MASK
