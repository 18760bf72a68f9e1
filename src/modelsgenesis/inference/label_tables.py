"""Names and colours of label maps, as other viewers read them."""

from collections.abc import Sequence

from modelsgenesis.data.predictions import WrittenFiles
from modelsgenesis.errors import DataError, printable
from modelsgenesis.figures.colours import colours
from modelsgenesis.files import write_atomically

_SNAP = """\
################################################
# ITK-SnAP Label Description File
# File format:
# IDX   -R-  -G-  -B-  -A--  VIS MSH  LABEL
################################################
    0     0    0    0        0  0  0    "Clear Label"
"""


def write_label_tables(files: WrittenFiles, labels: Sequence[str]) -> None:
    """Write names and colours of the values of label maps, as 3D Slicer and as ITK-SNAP read them.

    Args:
        files: Of a label map, or of the table of several.
        labels: By value, the background first.

    Raises:
        DataError: A file cannot be written.
    """
    slicer, snap = ["# Color table file", f"# {len(labels)} values", "0 background 0 0 0 0"], _SNAP
    for index, (name, (red, green, blue)) in enumerate(zip(labels[1:], colours(len(labels) - 1), strict=True), start=1):
        plain = printable(name)
        slicer.append(f"{index} {'_'.join(plain.split()) or index} {red} {green} {blue} 255")
        quoted = plain.replace('"', "'")
        snap += f'{index:5} {red:5} {green:4} {blue:4}        1  1  1    "{quoted}"\n'
    write_atomically(files.slicer, "\n".join(slicer) + "\n", DataError)
    write_atomically(files.itksnap, snap, DataError)
