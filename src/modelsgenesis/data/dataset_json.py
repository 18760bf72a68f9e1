"""`dataset.json` of the Medical Segmentation Decathlon and of nnU-Net, versions 1 and 2, read by one parser."""

import operator
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelsgenesis.data.cases import LabelledCase, unread
from modelsgenesis.data.reading import file_stem
from modelsgenesis.errors import DataError
from modelsgenesis.files import parsing, read_json

NAME = "dataset.json"
_KEYS = "expected name, labels, modality or channel_names, and training as the Decathlon or nnU-Net have them"
_MOST_CHANNELS = 100


@dataclass(frozen=True, kw_only=True)
class Description:
    """What a `dataset.json` says; every path lies in its folder.

    Attributes:
        path: The file.
        name: Name of the data set.
        channels: What each image of a case shows, in the order of their numbers; empty where it does not say.
        training: Cases, with label maps where it lists them; each its own patient, for which see `find_patients`.
        images: Every image that it names, once each, those of the test as well.
        labels: What it calls the structures; see `structures`.
    """

    path: Path
    name: str
    channels: tuple[str, ...]
    training: tuple[LabelledCase, ...]
    images: tuple[Path, ...]
    labels: Any

    def structures(self) -> dict[int, str]:
        """Return the structures by their values in the label maps, 0 and so the background first.

        Version 2 of nnU-Net lists values by names, the others names by values.

        Raises:
            DataError: There are none, a value is not a whole number of its own from 0 on, a name is not text, or they
                are regions or an ignore label, which training here cannot take.
        """
        remedy = "expected a value of its own for each structure, 0 for the background, no regions and no ignore label"
        with parsing(self.path, DataError, what="in its labels", remedy=remedy):
            listed = self.labels
            by_value = all(key.isdecimal() and isinstance(name, str) for key, name in listed.items())
            pairs = listed.items() if by_value else [(value, name) for name, value in listed.items()]
            # 1.5 and "1.5" are not values, a list is a region.
            names = {int(v) if isinstance(v, str) else operator.index(v): _text(name) for v, name in pairs}
            if min(names) != 0 or len(names) < len(listed) or "ignore" in names.values():
                raise ValueError(f"received {listed!r:.80}")
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
        ending = content.get("file_ending", ".nii.gz")
        if len(channels) > _MOST_CHANNELS or not re.fullmatch(r"(\.\w+)+", ending):
            raise ValueError(f"{len(channels)} channels, file_ending {ending!r:.40}")
        if "channel_names" in content or not isinstance(content["training"], list):  # nnU-Net's folders
            masks, images, others = (
                sorted(file for file in (path.parent / name).glob(f"*{ending}") if not file.name.startswith("."))
                for name in ("labelsTr", "imagesTr", "imagesTs")
            )
            entries = content.get("dataset") or {}
            training = [_case(path.parent, entry, channels, name) for name, entry in entries.items()]
            # Numbered always: labelsTr/a.nii.gz says nothing of an imagesTr/a.nii.gz, which would be another image.
            for mask in masks if channels and not training else ():
                name = mask.name.removesuffix(ending)
                files = [path.parent / "imagesTr" / f"{name}_{at:04d}{ending}" for at in range(len(channels))]
                training.append(LabelledCase(name=name, patient=name, images=tuple(map(unread, files)), mask=mask))
            others = images + others
        else:
            training = [_case(path.parent, entry, channels) for entry in content["training"]]
            test = [_case(path.parent, entry, channels) for entry in content.get("test") or ()]
            others = [image.path for case in test for image in case.images]
        images = [image.path for case in training for image in case.images] + others
        return Description(
            path=path,
            name=_text(content.get("name") or path.absolute().parent.name),
            channels=channels,
            training=tuple(training),
            images=tuple(dict.fromkeys(images)),
            labels=content.get("labels"),
        )


def is_there(path: Path) -> bool:
    """Tell whether a path exists; one that is too long or holds a NUL does not."""
    return os.path.exists(path)  # noqa: PTH110 - Path.exists raises for a name that is too long


def _case(folder: Path, entry: Any, channels: Sequence[str], name: str = "") -> LabelledCase:
    """Return an entry of a list: a path, or a mapping with image(s) and label."""
    fields = entry if isinstance(entry, dict) else {"image": entry}
    named = fields.get("images", fields.get("image"))
    images = tuple(_inside(folder, one) for one in (named if isinstance(named, list) else [named]))
    name = name or file_stem(images[0])
    if Path(name).name != name:
        raise ValueError(f"a case called {name!r:.60}")
    if len(images) == 1 and not is_there(images[0]):
        # nnU-Net's name of a case is what the names of its channels share, such as case_0000.nii.gz, case_0001.nii.gz.
        stem, ending = file_stem(images[0]), images[0].name[len(file_stem(images[0])) :]
        numbered = [images[0].with_name(f"{stem}_{number:04d}{ending}") for number in range(len(channels))]
        images = tuple(numbered) if any(map(is_there, numbered)) else images
    # One file for several channels holds them as its volumes, as in the Decathlon.
    indices = range(len(channels)) if len(images) == 1 < len(channels) else [None]
    references = tuple(unread(image, index) for image in images for index in indices)
    mask = _inside(folder, fields["label"]) if "label" in fields else None
    return LabelledCase(name=name, patient=name, images=references, mask=mask)


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
