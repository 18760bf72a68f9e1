"""One palette for charts, outlines, label tables and the viewer: its first seven colours suit any colour vision."""

import colorsys

RGB = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""

# Without black, which is a scan's background, and with yellow last, which is faint on white.
_OKABE_ITO: tuple[RGB, ...] = (
    (0, 114, 178),
    (230, 159, 0),
    (0, 158, 115),
    (213, 94, 0),
    (204, 121, 167),
    (86, 180, 233),
    (240, 228, 66),
)


def colours(count: int) -> list[RGB]:
    """Return that many different colours: those of Okabe and Ito, then hues at equal distances, darker and lighter.

    Args:
        count: How many, such as the structures of a label map without the background.

    Example:
        >>> colours(2)
        [(0, 114, 178), (230, 159, 0)]

    References:
        Okabe, M. and Ito, K. (2008), Color Universal Design.
    """
    more = max(count - len(_OKABE_ITO), 0)
    mixed = (colorsys.hls_to_rgb(index / more, (0.4, 0.7, 0.55)[index % 3], 0.8) for index in range(more))
    return [
        *_OKABE_ITO[:count],
        *((round(255 * red), round(255 * green), round(255 * blue)) for red, green, blue in mixed),
    ]


def hex_of(colour: RGB) -> str:
    """Return a colour as CSS, SVG and matplotlib write it.

    Example:
        >>> hex_of((0, 114, 178))
        '#0072b2'
    """
    return "#" + "".join(f"{part:02x}" for part in colour)
