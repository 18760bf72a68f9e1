"""Finding scans: a file, a folder, a glob, a list file, a data set's `dataset.json`, or several of these."""

import glob
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from modelsgenesis.data import dataset_json, dicom
from modelsgenesis.data.names import find_patients, is_label_map, is_leftover, modality_of
from modelsgenesis.data.reading import KNOWN_FORMATS, describe, reader_of
from modelsgenesis.data.volume import ScanReference, SkippedScan
from modelsgenesis.errors import DataError, GenesisError, ScanError, printable
from modelsgenesis.files import check_regular, parsing, read_text, reason_of

Source = str | Path | Sequence[str | Path]
Found = tuple[list[ScanReference], list[SkippedScan]]

_LIST_SUFFIXES = (".txt", ".lst", ".list")
_NNUNET_PREDICTIONS = "predict_from_raw_data_args.json"  # nnU-Net writes it beside the label maps that it predicts
_SHOWN = 3  # names of what was left aside for one reason


def find_scans(source: Source, *, group_pattern: str | None = None) -> Found:
    r"""Find every scan that a source names, by its header alone.

    Args:
        source: A scan; a folder, searched to any depth; a glob, `**` included; a text file with a path a
            line; a Decathlon or nnU-Net `dataset.json`, or its folder; or a sequence of these.
        group_pattern: A regular expression on the file's name, else its path, whose first group is the patient, such
            as `(\d+)_`, where no tag of DICOM tells. By default see `find_patients`.

    Returns:
        The scans in the order of their paths, and what was skipped with its reason. Label maps beside scans and what
        macOS or Windows left are among the skipped and not bad; files that are not images are passed over.

    Raises:
        DataError: Nothing usable was found; the message tells why the first was skipped.
        ConfigurationError: The pattern is not a regular expression.
        MissingExtraError: A scan's format needs an optional dependency.

    Example:
        scans, skipped = find_scans("~/scans")
        scans[0].shape, scans[0].spacing  # (512, 512, 133), (0.7, 0.7, 2.5)
    """
    scans, skipped = scan_sources(source, group_pattern=group_pattern)
    if not scans:
        shown = str(source) if isinstance(source, (str, Path)) else ", ".join(map(str, source[:3]))
        first = f": {len(skipped)} skipped, the first {skipped[0].source}: {skipped[0].reason}" if skipped else ""
        raise DataError(f"{shown}: no usable scan{first}; expected {KNOWN_FORMATS}")
    return scans, skipped


def scan_sources(source: Source, *, group_pattern: str | None = None) -> Found:
    """Do what `find_scans` does, but return empty lists instead of raising when nothing is usable.

    Raises:
        DataError: The source does not exist, or is a list or `dataset.json` that cannot be read.
    """
    search = _Search()
    for one in [source] if isinstance(source, (str, Path)) else source:
        with parsing(one, DataError, what="as scans", remedy="check the path"):
            search.add(Path(one).expanduser(), str(one))
    if search.dicom:  # put together once all files are known, each once however often it was named
        found, skipped = dicom.find_series(dict.fromkeys(search.dicom))
        search.scans += found
        search.skipped += skipped
    scans = list({(scan.path, scan.index, scan.files): scan for scan in search.scans}.values())
    patients = iter(find_patients([scan.path for scan in scans if not scan.group], group_pattern)[0])
    return [replace(scan, group=scan.group or next(patients)) for scan in scans], list(dict.fromkeys(search.skipped))


survey = scan_sources  # its name in 0.1.0


def skipped_notes(skipped: Sequence[SkippedScan]) -> list[str]:
    """Return a line for each bad scan, and one for all that were left aside on purpose for the same reason."""
    notes = [f"skipped {one.source}: {one.reason}" for one in skipped if one.bad]
    for reason in dict.fromkeys(one.reason for one in skipped if not one.bad):
        names = [one.source for one in skipped if not one.bad and one.reason == reason]
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        notes.append(f"skipped {', '.join(names[:_SHOWN])}{more}: {reason}")
    return notes


class _Search:
    """Collects scans and what is skipped while it walks."""

    def __init__(self) -> None:
        self.scans: list[ScanReference] = []
        self.skipped: list[SkippedScan] = []
        self.dicom: list[Path] = []
        self.lists: set[Path] = set()

    def add(self, path: Path, shown: str) -> None:
        """Add what one source names."""
        if path.is_dir():
            self.folder(path)
        elif dataset_json.is_there(path):
            self.file(path)
        elif glob.has_magic(shown):
            matches = sorted(map(Path, glob.glob(str(path), recursive=True)))  # noqa: PTH207 - may be absolute
            self.files([match for match in matches if match.is_file()], labels=is_label_map(path.name))
        else:
            raise DataError(f"{shown}: there is no such file or folder")

    def file(self, path: Path) -> None:
        """Add a file that was named: a scan, a list of scans, or a data set's description."""
        if path.suffix.lower() in _LIST_SUFFIXES:
            lines = [] if path in self.lists else read_text(path, DataError).splitlines()  # it may name itself
            self.lists.add(path)
            for line in filter(None, map(str.strip, lines)):
                if not line.startswith("#"):
                    self.add(path.parent / Path(line).expanduser(), line)
        elif path.suffix.lower() != ".json":
            self.scan(path)
        elif not self.data_set(path):
            raise DataError(f"{path}: neither a Decathlon nor an nnU-Net description: no training cases in it")

    def files(self, paths: Iterable[Path], *, labels: bool) -> None:
        """Add the scans among files that were come upon; with `labels` those whose names say labels as well."""
        for path in paths:
            if (is_leftover(path.name) or reader_of(path)) and self.wanted(path, labels=labels):
                self.scan(path)

    def scan(self, path: Path, modality: str | None = None) -> None:
        """Add the volumes of one file, or skip it; DICOM waits until all of its files are known."""
        try:
            with parsing(path, ScanError, what="by its name, which is not UTF-8", remedy="rename it"):
                str(path).encode()  # else neither tables nor JSON nor a terminal could hold it
            with parsing(path, ScanError):
                check_regular(path, ScanError)
                if reader_of(path) is dicom:
                    self.dicom.append(path)
                else:
                    self.scans += [replace(scan, modality=scan.modality or modality) for scan in describe(path)]
        except ScanError as error:
            self.skip(path, error)

    def skip(self, path: Path, reason: str | GenesisError, *, bad: bool = True) -> None:
        """Note what is not taken."""
        self.skipped.append(SkippedScan.because(printable(str(path)), reason, bad=bad))

    def folder(self, root: Path) -> None:
        """Walk to any depth, once through each folder however many links lead to it."""
        labels = is_label_map(root.name)  # a folder of labels that was named is meant
        entered: set[tuple[int, int]] = set()
        waiting = [root]
        while waiting:
            folder = waiting.pop()
            try:
                status, entries = folder.stat(), sorted(folder.iterdir())
                inner = [entry for entry in entries if entry.is_dir()]
            except OSError as problem:
                self.skip(folder, f"cannot be listed: {reason_of(problem)}")
                continue
            identity, names = (status.st_dev, status.st_ino), {entry.name for entry in entries}
            if identity in entered:
                self.skip(folder, "a link back to a folder that was searched already", bad=False)
            elif folder != root and (_NNUNET_PREDICTIONS in names or not names):
                self.skip(folder, "label maps that nnU-Net predicted" if names else "an empty folder", bad=False)
            elif dataset_json.NAME not in names or not self.described(folder / dataset_json.NAME):
                waiting += reversed([one for one in inner if self.wanted(one, labels=labels)])
                self.files(sorted(set(entries) - set(inner)), labels=labels)
            entered.add(identity)

    def wanted(self, path: Path, *, labels: bool) -> bool:
        """Tell whether a file or folder that was come upon is looked at, and note what is left aside."""
        aside = "left by macOS or Windows, not a scan" if is_leftover(path.name) else ""
        if not aside and not labels and is_label_map(path.name):
            aside = "holds labels, by its name; name it, or list it in a text file, to take it for a scan"
        if aside:
            self.skip(path, aside, bad=False)
        return not aside and not path.name.startswith(".")

    def described(self, path: Path) -> bool:
        """Add what a folder's `dataset.json` lists; where that is damaged the folder is searched."""
        try:
            return self.data_set(path)
        except DataError as error:
            self.skip(path, error)
            return False

    def data_set(self, path: Path) -> bool:
        """Add the images, not the labels, of a Decathlon or nnU-Net data set; tell whether the file describes one."""
        description = dataset_json.read_description(path)
        if description is None:
            return False
        for image in description.images:
            if dataset_json.is_there(image):
                self.scan(image, modality_of(description.channels))
            else:
                self.skip(image, f"named in {path.name}, but not there")
        return True
