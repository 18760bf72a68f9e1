"""What a prediction is asked for, each case with a name, and where it goes, chosen before the first is written."""

import hashlib
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import compress
from os.path import commonpath, normpath
from pathlib import Path, PurePosixPath
from typing import Any

from modelsgenesis.data import ScanReference, SkippedScan, file_stem, scan_sources
from modelsgenesis.data.dataset_json import NAME as DATASET
from modelsgenesis.data.dataset_json import read_description
from modelsgenesis.data.finding import channel_order
from modelsgenesis.data.memory import loaded_scans
from modelsgenesis.data.predictions import EARLIER, PREVIEW, is_prediction, written_files
from modelsgenesis.data.reading import READERS
from modelsgenesis.errors import ConfigurationError, DataError, ScanError, printable, require
from modelsgenesis.reporting import Reporter

_CHANNEL = re.compile(r"_(\d{4})$")  # nnU-Net's names: case_0000.nii.gz, case_0001.nii.gz
TABLE = "predictions.csv"
"""Name of the table of all cases in a folder of predictions."""

_NIFTI = (".nii.gz", ".nii")
_NOT_FOLDERS = (*_NIFTI, ".csv", ".json", *(suffix for suffixes in READERS.values() for suffix in suffixes))
_LONGEST = 255 - len("_probabilities.nii.gz")  # bytes that a name may have before the longest ending


@dataclass(frozen=True, kw_only=True)
class Case:
    """What gets one prediction.

    Attributes:
        name: Name of the prediction, without ending; the folders of a searched folder stay in it.
        images: One for each channel, in the order of the model's.
    """

    name: str
    images: tuple[ScanReference, ...]

    @property
    def file(self) -> str:
        """Its file, of a DICOM series the folder, as a table of files names it: relative to what was searched."""
        first = self.images[0]
        path = first.path.parent if len(first.files) > 1 and first.format == "DICOM" else first.path
        return (PurePosixPath(self.name).parent / path.name).as_posix()


def find_case(
    scan: Any, channels: Sequence[str], *, dims: int, affine: Any = None, reporter: Reporter | None = None
) -> Case:
    """Return one scan as a case, from its files or from memory.

    Args:
        scan: What `find_cases` takes, or what `loaded_scans` takes.
        channels: Of the model.
        dims: Of the model.
        affine: Of an array; see `loaded_scans`.
        reporter: As of `find_cases`.

    Raises:
        ScanError: There is no scan, it cannot be used, or it is neither.
        ConfigurationError: There are several scans.
        DataError: There is no such file.
    """
    given = scan if isinstance(scan, (list, tuple)) else [scan]
    if not (given and all(isinstance(one, (str, Path)) for one in given)):
        images = loaded_scans(scan, channels=len(channels), dims=dims, affine=affine)
        return Case(name=file_stem(images[0].path), images=images)
    require(affine is None, ConfigurationError, "affine: a file has its own; expected none beside it")
    cases, skipped = find_cases(scan, channels, single=True, reporter=reporter or Reporter())
    if bad := [one for one in skipped if one.bad]:
        raise ScanError(f"{bad[0].source}: {bad[0].reason}")
    return cases[0]


def find_cases(
    source: str | Path | Sequence[str | Path], channels: Sequence[str], *, single: bool, reporter: Reporter
) -> tuple[list[Case], list[SkippedScan]]:
    """Find what a prediction is asked for.

    Args:
        source: A file, a folder searched to any depth, a DICOM series, a glob, a list of files, or several of these.
            As many files as there are channels are one case, in their order.
        channels: Of the model. With several, the files of a case are told by nnU-Net's names, `case_0000`,
            `case_0001`; or are the volumes of one file. Where a `dataset.json` names them, they are matched by name.
        single: Refuse a source of several scans.
        reporter: Receives a warning where a data set calls the channels otherwise than the model does.

    Returns:
        The cases in the order of their paths, and what was skipped with its reason.

    Raises:
        ScanError: There is no scan in the source.
        DataError: The source does not exist, or is a list that cannot be read.
        ConfigurationError: There are several scans, where one was expected.

    Example:
        cases, skipped = find_cases("imagesTs", ("T1", "T2", "FLAIR", "T1w"), single=False, reporter=Reporter())
        cases[0].name  # 'BRATS_485', of BRATS_485_0000.nii.gz to BRATS_485_0003.nii.gz
    """
    sources = [Path(one).expanduser() for one in ([source] if isinstance(source, (str, Path)) else source)]
    scans, skipped = scan_sources(sources)
    cases, count = [], len(channels)
    if not all(path.is_file() for path in sources):  # a folder that was predicted in place can be predicted again
        predicted = {path for path in {scan.path: None for scan in scans} if is_prediction(path)}
        skipped += [SkippedScan.because(path, EARLIER, bad=False) for path in sorted(predicted)]
        scans = [scan for scan in scans if scan.path not in predicted]
    elif count > 1 and len(scans) == len(sources) == count:
        given = tuple(sorted(scans, key=lambda scan: sources.index(scan.path)))
        cases, scans = [Case(name=_CHANNEL.sub("", file_stem(given[0].path)), images=given)], []
    orders: dict[Path | None, Sequence[int]] = {None: range(count)}
    for name, found in _groups(scans, sources, count).items():
        group = sorted(found, key=lambda scan: file_stem(scan.path))
        endings, files = [file_stem(scan.path)[-5:] for scan in group], {scan.path.name for scan in group}
        if len(group) != count or (len(files) > 1 and endings != [f"_{number:04d}" for number in range(count)]):
            there = f"holds {len(group)} volumes" if len(files) < len(group) else f"there is {', '.join(sorted(files))}"
            takes = f"{count} files, {name}_0000 to {name}_{count - 1:04d}" if count > 1 else "one volume a case"
            remedy = "rename or split the files, or give all of one case"
            skipped.append(SkippedScan(source=group[0].source, reason=f"{there}; the model takes {takes}: {remedy}"))
            continue
        # In the Decathlon and in nnU-Net the images lie one folder below, in imagesTs.
        nearby = (folder / DATASET for folder in group[0].path.parents[:2])
        dataset = next(filter(Path.exists, nearby), None) if count > 1 else None
        if dataset and dataset not in orders:  # a data set is read, and its warning given, once for all of its folders
            described = read_description(dataset)
            named = described.channels if described and len(described.channels) == count else channels
            orders[dataset] = match_channels("its data set", named, channels, reporter) or range(count)
        cases.append(Case(name=name, images=tuple(group[index] for index in orders[dataset])))
    # Skipped scans count: a folder of two, one of them broken, was not meant as one scan.
    shown, count = ", ".join(map(str, sources[:3])), len(cases) + sum(scan.bad for scan in skipped)
    require(count > 0, ScanError, f"{shown}: no scan to predict in it")
    several = f"{shown}: holds {count} scans, expected one; see predict_all for many"
    require(count == 1 or not single, ConfigurationError, several)
    return cases, skipped


def _groups(scans: Sequence[ScanReference], sources: Sequence[Path], channels: int) -> dict[str, list[ScanReference]]:
    """Put together what may be one case: the volumes of a file, or channels by nnU-Net's names.

    Names are relative to the folder that was searched, or to what all files share. It holds every scan, so that no
    name leads out of it: links are not followed, `..` is.
    """
    folders = [Path(normpath(scan.path.parent.absolute())) for scan in scans]
    searched = [normpath(sources[0].absolute())] if len(sources) == 1 and sources[0].is_dir() else []
    root = commonpath([*folders, *searched]) if scans else ""
    is_series = [scan.format == "DICOM" and len(scan.files) > 1 for scan in scans]
    series = Counter(compress(folders, is_series))
    # Single-channel data sets of nnU-Net end in _0000 throughout; one such name among others is just a name.
    numbered = all(file_stem(scan.path).endswith("_0000") for scan in scans)
    seen: Counter[Path] = Counter()
    groups: dict[str, list[ScanReference]] = defaultdict(list)
    for scan, folder, has_files in zip(scans, folders, is_series, strict=True):
        name = file_stem(scan.path)
        if has_files:
            # The files of a series have numbers for names; what people call it is the folder.
            seen[folder] += 1
            name = f"{folder.name}_{seen[folder]}" if series[folder] > 1 else folder.name
            folder = folder.parent  # noqa: PLW2901
        elif scan.format == "DICOM" and scan.index is not None:
            name = f"{name}_{scan.index}"
        elif channels > 1 or numbered:
            name = _CHANNEL.sub("", name)
        # The root may be a series' own folder.
        between = folder.relative_to(root) if folder.is_relative_to(root) else Path()
        groups[(between / name).as_posix()].append(scan)
    return groups


def match_channels(
    where: str, declared: Sequence[str], channels: Sequence[str], reporter: Reporter
) -> Sequence[int] | None:
    """Return which of the declared channels is each of the model's; None, and a warning, where names do not tell it."""
    order = channel_order(declared, channels)
    if order is None:
        reporter.note(
            f"warning: the channels of {where}, {', '.join(declared)}, are not the model's {', '.join(channels)}: "
            "taken in this order; expect a poor prediction where it is another"
        )
    return order


def preview_of(case: Case, path: Path) -> Path:
    """Return the picture of a case: beside its label map; of a classification beside the table, by its name."""
    if path.suffix.lower() != ".csv":
        return written_files(path).preview
    name = output_name(case.name)
    return path.parent / name.with_name(f"{name.name}{PREVIEW}")


def output_name(name: str) -> Path:
    r"""Return the file of a case's prediction, without ending: every file system takes it, and it leads nowhere else.

    What a name has to lose, such as control characters, and what is beyond 234 bytes, is made up for by a few digits of
    its SHA-256: two names stay two.

    Example:
        >>> str(output_name("../patient 1/scan")), str(output_name("a\tb"))
        ('patient 1/scan', 'a_b_894891f8')
    """
    parts = [part for part in name.split("/") if part not in ("", ".", "..")] or ["_"]
    for index, part in enumerate(parts):
        plain = "".join(one if printable(one) == one != "\\" else "_" for one in part)
        if plain != part or len(part.encode()) > _LONGEST:
            cut = plain.encode()[: _LONGEST - 9].decode(errors="ignore")
            parts[index] = f"{cut}_{hashlib.sha256(os.fsencode(part)).hexdigest()[:8]}"
    return Path(*parts)


def output_paths(
    cases: Sequence[Case], output: Path | None, *, task: str, many: bool, keep: bool = False, preview: bool = False
) -> tuple[list[tuple[Case, Path]], Path | None]:
    """Choose the file of every prediction; what is written beside it follows from its name.

    Of one scan `output` where it ends in .nii.gz or .nii, else `<output>/<name>.nii.gz`; without an output
    `<name>_seg.nii.gz` in the working folder. Of several `<output>/<name>.nii.gz`, without an output in
    `predictions/`; the folders of a searched folder stay in the name. Of a classification one table: `output` where it
    ends in .csv, else `predictions.csv` in that folder; several segmentations have one beside their label maps, too.

    Args:
        cases: To be predicted; no prediction may replace a file of theirs.
        output: As it was asked for.
        task: `"segmentation"` or `"classification"`.
        many: Whether several scans were given, though some may have been skipped.
        keep: Whether label maps that are there already are kept.
        preview: Whether each case of a classification gets a picture, which is `preview_of` it.

    Returns:
        The cases with their paths; and the table, None for one segmentation.

    Raises:
        ConfigurationError: One file for several label maps, or a file of another kind.
        DataError: A prediction would replace a scan, another prediction or a file of somebody else, lie outside of the
            output, or cannot be written.
    """
    segments, name = task == "segmentation", output.name.lower() if output else ""
    is_file = bool(output) and name.endswith(_NIFTI if segments else ".csv")
    if name.endswith(_NOT_FOLDERS) and not is_file:
        kind = "label maps are written as NIfTI; name a .nii.gz" if segments else "classes as a table; name a .csv"
        raise ConfigurationError(f"{output}: {kind}, or a folder")
    several = is_file and segments and many
    require(not several, ConfigurationError, f"{output}: one file for the predictions of several scans; name a folder")
    folder = output.parent if output and is_file else output or Path("predictions" if segments and many else "")
    table = folder / TABLE if segments and many else None
    if is_file or not segments:
        outputs = [(case, output if output and is_file else folder / TABLE) for case in cases]
    else:
        names = [(case, output_name(case.name)) for case in cases]
        alone = not (output or many)
        outputs = [(case, folder / (f"{name.name}_seg.nii.gz" if alone else f"{name}.nii.gz")) for case, name in names]
    paths = [*(path for _, path in (outputs if segments else outputs[:1])), *filter(None, [table])]
    inputs = [file for case in cases for image in case.images for file in image.files]
    pictures = [preview_of(case, path) for case, path in outputs if preview and not (keep and path.exists())]
    files = [*(file for path in paths for file in written_files(path)), *([] if segments else pictures)]
    check_outputs(files, folder, inputs)
    others = [path for path in pictures if path.exists() and not is_prediction(path)]
    require(not others, DataError, f"{[*others, ''][0]}: exists and is not a preview; choose another output")
    for path in paths:
        there = [file for file in written_files(path) if file.exists()]
        if there and not is_prediction(path) and not (keep and path in there):
            raise DataError(f"{there[0]}: exists and is not a prediction; choose another output")
    # What a file system may tell files by: some ignore case, some the two ways to write an accent.
    names = [unicodedata.normalize("NFC", normpath(file.absolute())).casefold() for file in files]
    times = Counter(names)
    twice = next((file for file, name in zip(files, names, strict=True) if times[name] > 1), None)
    require(twice is None, DataError, f"{twice}: two scans would have this file; rename one, or predict them apart")
    return outputs, table if segments else next((path for _, path in outputs), None)


def check_outputs(paths: Iterable[Path], folder: Path, inputs: Iterable[Path]) -> None:
    """Refuse files that cannot be written, lie outside of a folder, or are an input, before any work.

    Raises:
        DataError: A path is a folder or an input, leads out of the folder, or cannot be made or written.
    """
    # By device and inode: a link to a scan is the scan, whatever it is called.
    protected = {(state.st_dev, state.st_ino) for state in (file.stat() for file in inputs if file.is_file())}
    for path in paths:
        require(not path.is_dir(), DataError, f"{path}: is a folder; expected the name of a file to write")
        inside = path.parent.resolve().is_relative_to(folder.resolve())
        require(inside, DataError, f"{path}: a link leads out of {folder}; choose another output folder")
        if path.exists() and (path.stat().st_dev, path.stat().st_ino) in protected:
            raise DataError(f"{path}: the prediction would replace the scan itself; choose another output folder")
        parent = next(place for place in path.absolute().parents if place.exists())
        writable = parent.is_dir() and os.access(parent, os.W_OK)
        require(writable, DataError, f"{path}: cannot be written in {parent}; choose another folder")
