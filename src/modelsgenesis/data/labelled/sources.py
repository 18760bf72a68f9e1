"""Where the images of a labelled case lie: a file, a row of an array, a cube of a scan."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from modelsgenesis.data.reading import read_volume
from modelsgenesis.data.volume import Volume


class ImageSource(Protocol):
    """One channel of one case."""

    @property
    def source(self) -> str:
        """What messages call it."""
        ...

    @property
    def path(self) -> Path:
        """The file that holds it, perhaps among others."""
        ...

    def read(self) -> Volume:
        """Read the voxels.

        Raises:
            ScanError: The file cannot be read or used.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class FileImage:
    """A file, or one volume of a file that holds several.

    Attributes:
        path: The file, or the folder of a DICOM series.
        index: Which volume of the file; None where it holds one.

    Example:
        FileImage(path=Path("imagesTr/la_003.nii.gz")).read().array.shape  # (320, 320, 130)
    """

    path: Path
    index: int | None = None

    @property
    def source(self) -> str:
        """What messages call it."""
        return str(self.path) if self.index is None else f"{self.path} [{self.index}]"

    def read(self) -> Volume:
        """Read the voxels; see `read_volume`."""
        return read_volume(self.path, self.index)
