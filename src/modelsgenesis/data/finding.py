"""Finding scans: a file, a folder, a glob, a list file, a data set's `dataset.json`, or several of these."""

import glob
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from modelsgenesis.data import dicom
from modelsgenesis.data.reading import KNOWN_FORMATS, describe, reader_of
from modelsgenesis.data.volume import Refusal, ScanReference, file_stem
from modelsgenesis.errors import DataError, ScanError

Source = str | Path | Sequence[str | Path]
Found = tuple[list[ScanReference], list[Refusal]]

_LABEL_FOLDERS = {"label", "labels", "labelstr", "labelsts", "mask", "masks", "segmentation", "segmentations"}
_MODALITIES = {
    "ct": "ct",
    "mr": "mri",
    "us": "ultrasound",
    "ultrasound": "ultrasound",
    "x-ray": "xray",
    "xray": "xray",
}
_LABELS = "a folder of labels by its name"
_LOOP = "a link back to a folder that was searched already"
_LIST_SUFFIXES = (".txt", ".lst", ".list")


def find_scans(source: Source, *, group_pattern: str | None = None) -> Found:
    r"""Find every scan that a source names, by its header alone.

    Args:
        source: A scan; a folder, searched to any depth; a glob, `**` included; a text file with a path a
            line; a Decathlon or nnU-Net `dataset.json`, or its folder; or a sequence of these.
        group_pattern: A regular expression on the file's name whose first group is the patient, such as
            `(\d+)_`. By default the patient of DICOM, `sub-…` of BIDS, else the file's stem.

    Returns:
        The scans in the order of their paths, and what was refused with its reason. Files that are no
        images are left aside.

    Raises:
        DataError: Nothing usable was found; the message tells the first refusal.
        MissingExtraError: A scan's format needs an optional dependency.

    Example:
        scans, refused = find_scans("~/scans")
        scans[0].shape, scans[0].spacing  # (512, 512, 133), (0.7, 0.7, 2.5)
    """
    scans, refused = survey(source, group_pattern=group_pattern)
    if not scans:
        first = f": {len(refused)} refused, the first {refused[0].source}: {refused[0].reason}" if refused else ""
        raise DataError(f"{_shown(source)}: no usable scan{first}; expected {KNOWN_FORMATS}")
    return scans, refused


def survey(source: Source, *, group_pattern: str | None = None) -> Found:
    """Do what `find_scans` does, but return empty lists instead of raising when nothing is usable.

    Raises:
        DataError: The source does not exist, or is a list or `dataset.json` that cannot be read.
    """
    sources = [source] if isinstance(source, (str, Path)) else list(source)
    search = _Search()
    for one in sources:
        search.add(Path(one).expanduser(), str(one))
    search.finish()
    unique = {(scan.path, scan.index, scan.files): scan for scan in search.scans}
    scans = [replace(scan, group=scan.group or _group(scan, group_pattern)) for scan in unique.values()]
    return scans, list(dict.fromkeys(search.refused))


class _Search:
    """Collects scans and refusals while it walks."""

    def __init__(self) -> None:
        self.scans: list[ScanReference] = []
        self.refused: list[Refusal] = []
        self.dicom: list[Path] = []

    def add(self, path: Path, shown: str) -> None:
        """Add what one source names."""
        if path.is_dir():
            self.folder(path)
        elif path.exists():
            self.file(path)
        elif glob.has_magic(shown):
            for match in sorted(glob.glob(str(path), recursive=True)):  # noqa: PTH207 - a pattern may be absolute
                if Path(match).is_file() and reader_of(Path(match)):
                    self.scan(Path(match))
        else:
            raise DataError(f"{shown}: there is no such file or folder")

    def file(self, path: Path) -> None:
        """Add a file that was named: a scan, a list of scans, or a data set's description."""
        if path.suffix.lower() in _LIST_SUFFIXES:
            for line in _lines(path):
                self.add(path.parent / Path(line).expanduser(), line)
        elif path.suffix.lower() == ".json":
            self.data_set(path, _json(path))
        else:
            self.scan(path)

    def scan(self, path: Path, modality: str | None = None) -> None:
        """Add the volumes of one file, or refuse it; DICOM waits until all of its files are known."""
        if path.exists() and reader_of(path) is dicom:
            self.dicom.append(path)
            return
        try:
            found = describe(path)
        except ScanError as error:
            self.refused.append(Refusal(source=str(path), reason=_reason(error, path)))
        else:
            self.scans += [replace(scan, modality=scan.modality or modality) for scan in found]

    def finish(self) -> None:
        """Put the DICOM files together, once each however often they were named."""
        if self.dicom:
            scans, refused = dicom.find_series(dict.fromkeys(self.dicom))
            self.scans += scans
            self.refused += refused

    def folder(self, root: Path) -> None:
        """Walk to any depth, once through each folder however many links lead to it."""
        for folder, names in self.walk(root):
            for name in names:
                if reader_of(folder / name):
                    self.scan(folder / name)

    def walk(self, root: Path) -> Iterator[tuple[Path, list[str]]]:
        """Yield each folder with the names of its files; a data set tells its own and is not entered."""
        entered: set[tuple[int, int]] = set()
        for place, folders, names in os.walk(root, followlinks=True, onerror=self.refuse_folder):
            folder = Path(place)
            status = folder.stat()
            if (status.st_dev, status.st_ino) in entered:
                folders.clear()
                self.refused.append(Refusal(source=place, reason=_LOOP, bad=False))
                continue
            entered.add((status.st_dev, status.st_ino))
            if "dataset.json" in names and _is_data_set(description := self.description(folder)):
                folders.clear()
                self.data_set(folder / "dataset.json", description)
                continue
            self.leave_labels(folder, folders)
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            yield folder, sorted(name for name in names if not name.startswith("."))

    def description(self, folder: Path) -> Any:
        """Return what a folder's `dataset.json` says; a damaged one is refused, and the folder searched."""
        path = folder / "dataset.json"
        try:
            return _json(path)
        except DataError as error:
            self.refused.append(Refusal(source=str(path), reason=str(error).removeprefix(f"{path}: ")))
            return None

    def leave_labels(self, folder: Path, folders: list[str]) -> None:
        """Take folders of labels out of the walk, and say so."""
        for name in [name for name in folders if name.lower() in _LABEL_FOLDERS]:
            folders.remove(name)
            self.refused.append(Refusal(source=str(folder / name), reason=_LABELS, bad=False))

    def refuse_folder(self, error: OSError) -> None:
        """Report a folder that cannot be listed."""
        self.refused.append(Refusal(source=str(error.filename), reason=f"cannot be listed: {error.strerror}"))

    def data_set(self, path: Path, description: Any) -> None:
        """Add the images, not the labels, of a Decathlon or nnU-Net data set."""
        if not _is_data_set(description):
            raise DataError(f"{path}: neither a Decathlon nor an nnU-Net description: no training cases in it")
        names = description.get("modality") or description.get("channel_names") or {}
        first = str(next(iter(names.values()), "")).lower() if isinstance(names, dict) else str(names).lower()
        modality = next((value for start, value in _MODALITIES.items() if first.startswith(start)), None)
        for image in _images(path.parent, description):
            if image.exists():
                self.scan(image, modality)
            else:
                self.refused.append(Refusal(source=str(image), reason=f"named in {path.name}, but not there"))


def _images(folder: Path, description: dict[str, Any]) -> list[Path]:
    cases = description.get("training")
    if isinstance(cases, list):
        names = [case.get("image") if isinstance(case, dict) else case for case in cases]
        names += [case.get("image") if isinstance(case, dict) else case for case in description.get("test", [])]
        return [folder / name for name in names if isinstance(name, str)]
    ending = str(description.get("file_ending", ".nii.gz"))
    return sorted(
        path
        for part in ("imagesTr", "imagesTs")
        for path in (folder / part).glob(f"*{glob.escape(ending)}")
        if not path.name.startswith(".")
    )


def _is_data_set(description: Any) -> bool:
    return isinstance(description, dict) and ("training" in description or "channel_names" in description)


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read as JSON: {error}") from error


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text()
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as a list of paths: {error}") from error
    return [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def _group(scan: ScanReference, pattern: str | None) -> str:
    """Return the patient as far as the file's name tells: by the pattern, BIDS, else the stem."""
    if pattern is not None and (match := re.search(pattern, scan.path.name)):
        return match.group(1) if match.re.groups else match.group()
    stem = file_stem(scan.path)
    if match := re.match(r"sub-[A-Za-z0-9]+", stem):
        return match.group()
    return re.sub(r"_\d{4}$", "", stem) if scan.path.parent.name in ("imagesTr", "imagesTs") else stem


def _reason(error: ScanError, path: Path) -> str:
    return str(error).removeprefix(f"{path}: ")


def _shown(source: Source) -> str:
    return str(source) if isinstance(source, (str, Path)) else ", ".join(map(str, source[:3]))
