"""Copies of a file with one kind of damage each."""

import numpy as np


def damaged_copies(content: bytes, start: int) -> list[bytes]:
    """Return 24 copies with another bit changed from `start` on, and a few that are cut."""
    places = np.linspace(start, len(content) - 1, 24).astype(int)
    copies = [content[:place] + bytes([content[place] ^ 16]) + content[place + 1 :] for place in places]
    ends = (start, start + 1, start + 100, len(content) - 9, len(content) - 1)
    return copies + [content[:end] for end in ends]
