"""`dataset.json` of the Medical Segmentation Decathlon and of nnU-Net, versions 1 and 2, read by one parser."""

import operator
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelsgenesis.data.reading import file_stem
from modelsgenesis.errors import DataError
from modelsgenesis.files import parsing, read_json

NAME = "dataset.json"
_KEYS = "expected name, labels, modality or channel_names, and training as the Decathlon or nnU-Net have them"
_MOST_CHANNELS = 100


@dataclass(frozen=True, kw_only=True)
class ListedCase:
    """An image, or the files of its channels, and its label map where the list has one."""

    name: str
    images: tuple[Path, ...]
    mask: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Description:
    """What a `dataset.json` says; every path lies in its folder.

    Attributes:
        path: The file.
        name: Name of the data set.
        channels: What each image of a case shows, in the order of their numbers; empty where it does not say.
        training: Cases, with label maps where it lists them.
        images: Every image that it names, once each, those of the test as well.
        content: All of it.
    """

    path: Path
    name: str
    channels: tuple[str, ...]
    training: tuple[ListedCase, ...]
    images: tuple[Path, ...]
    content: Mapping[str, Any]

    def structures(self) -> dict[int, str]:
        """Return the structures by their values in the label maps, 0 and so the background first.

        Version 2 of nnU-Net lists values by names, the others names by values.

        Raises:
            DataError: There are none, a value is not a whole number of its own from 0 on, a name is not text, or they
                are regions or an ignore label, which training here cannot take.
        """
        remedy = "expected values by names or names by values, 0 for the background"
        with parsing(self.path, DataError, what="in its labels", remedy=remedy):
            listed = self.content["labels"]
            by_value = all(key.isdecimal() and isinstance(name, str) for key, name in listed.items())
            pairs = listed.items() if by_value else [(value, name) for name, value in listed.items()]
            if any(isinstance(value, list) for value, _ in pairs) or "ignore" in (*listed, *listed.values()):
                raise DataError(
                    f"{self.path}: labels {listed!r:.80} are regions of several values, or hold an ignore label; "
                    "expected one value a structure: write the parts as labels of their own"
                )
            names = {_whole(value): _text(name) for value, name in pairs}
            if min(names) != 0 or len(names) < len(listed):
                raise ValueError(f"{listed!r:.80} have not a value of their own each")
        return dict(sorted(names.items()))


def read_description(path: Path) -> Description | None:
    """Read a `dataset.json`; None for a JSON file that describes something else.

    Raises:
        DataError: It cannot be read, a part of it is of another kind, or a path in it leads out of its folder.
    """
    content = read_json(path, DataError)
    if not isinstance(content, dict) or {"training", "channel_names"}.isdisjoint(content):
        return None
    with parsing(path, DataError, what="as a data set", remedy=_KEYS):
        named = content.get("channel_names") or content.get("modality") or {}
        named = {"0": named} if isinstance(named, str) else named
        channels = tuple(_text(named[key]) for key in sorted(named, key=int))
        if len(channels) > _MOST_CHANNELS:
            raise ValueError(f"{len(channels)} channels")
        if "channel_names" in content or not isinstance(content["training"], list):
            training, others = _by_folders(path.parent, content, channels)
        else:
            training = [_case(path.parent, entry, channels) for entry in content["training"]]
            test = [_case(path.parent, entry, channels) for entry in content.get("test") or ()]
            others = [image for case in test for image in case.images]
        images = [image for case in training for image in case.images] + others
        return Description(
            path=path,
            name=_text(content.get("name") or path.absolute().parent.name),
            channels=channels,
            training=tuple(training),
            images=tuple(dict.fromkeys(images)),
            content=content,
        )


def is_there(path: Path) -> bool:
    """Tell whether a path exists; one that is too long or holds a NUL does not."""
    return os.path.exists(path)  # noqa: PTH110 - Path.exists raises for a name that is too long


def _by_folders(
    folder: Path, content: Mapping[str, Any], channels: Sequence[str]
) -> tuple[list[ListedCase], list[Path]]:
    """Return the cases of nnU-Net's list `dataset`, else of its folders by their names, and all images there."""
    ending = content.get("file_ending", ".nii.gz")
    if not re.fullmatch(r"(\.\w+)+", ending):
        raise ValueError(f"file_ending {ending!r:.40}")
    files = [
        sorted(file for file in (folder / name).glob(f"*{ending}") if not file.name.startswith("."))
        for name in ("labelsTr", "imagesTr", "imagesTs")
    ]
    if listed := content.get("dataset"):
        return [_case(folder, entry, channels, name) for name, entry in listed.items()], files[1] + files[2]
    training = []
    for mask in files[0] if channels else ():
        images = _numbered(folder / "imagesTr" / mask.name, channels)
        training.append(ListedCase(name=file_stem(mask), images=images, mask=mask))
    return training, files[1] + files[2]


def _case(folder: Path, entry: Any, channels: Sequence[str], name: str = "") -> ListedCase:
    """Return an entry of a list: a path, or a mapping with image(s) and label."""
    fields = entry if isinstance(entry, dict) else {"image": entry}
    named = fields.get("images", fields.get("image"))
    images = tuple(_inside(folder, one) for one in (named if isinstance(named, list) else [named]))
    name = name or file_stem(images[0])
    if Path(name).name != name:
        raise ValueError(f"a case called {name!r:.60}")
    if len(images) == 1 and not is_there(images[0]) and any(map(is_there, _numbered(images[0], channels))):
        images = _numbered(images[0], channels)  # version 1 of nnU-Net lists what the names of its channels share
    return ListedCase(name=name, images=images, mask=_inside(folder, fields["label"]) if "label" in fields else None)


def _numbered(image: Path, channels: Sequence[str]) -> tuple[Path, ...]:
    """Return the files of the channels by nnU-Net's names, such as case_0000.nii.gz and case_0001.nii.gz."""
    stem = file_stem(image)
    return tuple(image.with_name(f"{stem}_{number:04d}{image.name[len(stem) :]}") for number in range(len(channels)))


def _inside(folder: Path, name: object) -> Path:
    """Return a path that a description names; it may not lead out of the description's folder.

    Its `..` and absolute names would take whoever reads the list, or writes beside what it names, to files of others.
    Links that lie in the folder were made by its owner, and are followed.
    """
    root = os.path.abspath(folder)  # noqa: PTH100 - `..` is resolved and links are not, unlike by Path.resolve
    inside = Path(os.path.relpath(os.path.join(root, _text(name)), root))  # noqa: PTH118
    if not inside.parts or inside.parts[0] == "..":
        raise ValueError(f"{name!r:.80} leads out of its folder; move dataset.json above the files that it names")
    return folder / inside


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise TypeError(f"{value!r:.60} is not printable text")
    return value.strip()


def _whole(value: Any) -> int:
    """Return the value of a structure; 1.5 and "1.5" are none."""
    return int(value) if isinstance(value, str) else operator.index(value)
