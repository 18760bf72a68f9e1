"""Damage of a disk, a cable or a person to bytes and to JSON, for the tests that read damaged files."""

import random
from typing import Any

ODD: list[Any] = [
    *(None, True, 0, -1, 0.5, 2**31, 2**63, 10**400, 1e-320, 1e308, float("nan"), float("inf")),
    *("", "x" * 3000, "\ud800", "\x1b[2J", "none", [], {}, [[]], [None], [1] * 5, {"a": {"b": []}}),
]


def damage(content: bytes, chance: random.Random) -> bytes:
    """Flip, overwrite, repeat, cut out or cut off some bytes, more of them where headers lie."""
    damaged = bytearray(content)
    for _ in range(chance.randint(1, 6)):
        at = chance.randrange(max(1, min(len(damaged), chance.choice((256, 4096, len(content))))))
        word = chance.choice((b"\xff" * 8, bytes(8), (1 << chance.randrange(64)).to_bytes(8, "little"), b"\x7f", b"{"))
        end, new = chance.choice(
            (
                (at + 1, bytes([chance.randrange(256)])),
                (at + len(word), word),
                (at, damaged[at : at + chance.randrange(64)]),
                (at + chance.randrange(16), b""),
                (len(damaged) if chance.random() < 0.02 and at else at, b""),
            )
        )
        damaged[at:end] = new
    return bytes(damaged)


def altered(value: Any, chance: random.Random) -> Any:
    """Return JSON in which a value somewhere is an odd one, or a key is missing, new or there twice."""
    if not isinstance(value, (dict, list)) or not value or chance.random() < 0.1:
        return chance.choice(ODD)
    if isinstance(value, list):
        at = chance.randrange(len(value))
        return value[:at] + chance.choice(([altered(value[at], chance)], [], [value[at]] * 2)) + value[at + 1 :]
    key = chance.choice(list(value))
    rest = {name: item for name, item in value.items() if name != key}
    return {**rest, chance.choice((key, key, key, "odd")): altered(value[key], chance)}
