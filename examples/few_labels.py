"""Few labels with and without a Genesis: the same training twice, and a picture of what each finds.

python examples/few_labels.py                  # the embedded sample, one labelled CT: a minute or two on two cores
python examples/few_labels.py LungNodules2D/nodules.csv --modality ct-8bit --patch 128,128 --labels 10
One run of each is a picture, not a proof: `modelsgenesis compare` repeats it and tests the difference.
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

import modelsgenesis
from modelsgenesis.configs import SegmentationConfig
from modelsgenesis.data.cases import read_mask, sample_data
from modelsgenesis.data.labelled import read_labelled
from modelsgenesis.figures.pictures import outlines
from modelsgenesis.hub.registry import fitting_models
from modelsgenesis.training.splits import read_split


def widest(image: np.ndarray, *maps: np.ndarray) -> list[np.ndarray]:
    """Return the slice of each array in which the first map marks most; pictures as they are. [rows, columns]."""
    if image.ndim == 3:
        at = int((maps[0] > 0).sum(axis=(0, 1)).argmax())
        image, *maps = (np.rot90(one[..., at]) for one in (image, *maps))
    low, high = np.percentile(image, [1, 99])
    return [np.clip((image - low) / max(high - low, 1e-6), 0, 1), *maps]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", help="labelled images; default: the embedded sample")
    parser.add_argument("--modality", help="ct, ct-8bit, mri, xray …, where the data does not tell")
    parser.add_argument("--init", help="the Genesis; default: one of the package's own that fits")
    parser.add_argument("--labels", help="patients whose labels are used; default: all")
    parser.add_argument("--patch", default="32,32,8")
    parser.add_argument("--steps", type=int, default=100)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    if given.data:
        data = read_labelled(given.data, modality=given.modality)
    else:  # of all that is labelled the liver alone: value 5
        data = replace(sample_data(), labels=("background", "liver"), values=((0,), (5,)))
    cards = [card for card in fitting_models(data.modality, data.dims) if card.source.repository is None]
    init = given.init or cards[0].name
    config = SegmentationConfig(
        patch_size=tuple(map(int, given.patch.split(","))),
        steps=given.steps,
        batch_size=4,
        learning_rate=5e-3,
        validate_every=given.steps,
        labelled_patients=given.labels,
        samples_per_scan=16,
        foreground_share=0.75,
        overlap=0.25,
        workers=0,
    )
    found: dict[str, dict[str, np.ndarray]] = {}
    for name, scratch in (("with", False), ("without", True)):
        print(f"training {name} {init}")
        run, measured = modelsgenesis.finetune(
            data, folder / name, init=init, from_scratch=scratch, config=config, draw=False
        )
        print(f"{name} the Genesis: Dice {measured['dice']:.3f}")
        tested = [case for case in data.cases if case.name in read_split(run / "split.json").test][:3]
        found[name] = {case.name: modelsgenesis.predict(run, case.images[0].path).labels for case in tested}
    rows = []
    for case in tested:
        truth = np.isin(read_mask(case.mask).array, sum(data.values[1:], ()))
        image, *maps = widest(case.images[0].read().array, truth, *(one[case.name] for one in found.values()))
        rows.append(np.hstack([np.asarray(outlines(image, one.astype(np.uint8))) for one in maps]))
    height, width = (max(row.shape[axis] for row in rows) for axis in (0, 1))
    padded = [np.pad(row, ((0, height - row.shape[0]), (0, width - row.shape[1]), (0, 0))) for row in rows]
    Image.fromarray(np.vstack(padded)).save(folder / "few_labels.png")
    print(f"{folder / 'few_labels.png'}: truth, with, without the Genesis; a row for each of {len(rows)} test cases")


if __name__ == "__main__":
    main()
