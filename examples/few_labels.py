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
from modelsgenesis.data.cases import LabelledCase, LabelledData, read_mask, sample_data
from modelsgenesis.data.labelled import read_labelled
from modelsgenesis.figures.pictures import outlines
from modelsgenesis.hub.registry import fitting_models
from modelsgenesis.reports.cases import slices_of
from modelsgenesis.training.splits import read_split


def draw(case: LabelledCase, data: LabelledData, found: dict[str, np.ndarray]) -> np.ndarray:
    """Return a slice twice, uint8 [rows, columns, 3]: the truth solid; dashed what was found with and without."""
    assert case.mask is not None, f"{case.name} has no label map; name data with masks"
    scan, mask = case.images[0].read(), read_mask(case.mask)
    truth = np.isin(mask.array, [value for values in data.values[1:] for value in values])
    maps = {"truth": truth, "predicted": found["with"] > 0, "without": found["without"] > 0}
    _, slices = slices_of(
        {"scan": scan}, {name: replace(scan, array=one.astype(np.uint8)) for name, one in maps.items()}
    )
    image, solid, *dashed = (slices[f"0/{name}"] for name in ("scan", *maps))
    middle = len(image) // 2
    return np.hstack([np.asarray(outlines(image[middle], solid[middle], one[middle])) for one in dashed])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", help="labelled images; default: the embedded sample")
    parser.add_argument("--modality", help="ct, ct-8bit, mri, xray …, where the data does not tell")
    parser.add_argument("--init", help="the Genesis; default: one of the package's own that fits")
    parser.add_argument("--labels", help="patients whose labels are used; default: all")
    parser.add_argument("--patch", default="32,32,16")
    parser.add_argument("--steps", type=int, default=150)
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
        learning_rate=1e-2,
        validate_every=given.steps,
        labelled_patients=given.labels,
        samples_per_scan=16,
        foreground_share=0.5,
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
    rows = [draw(case, data, {name: maps[case.name] for name, maps in found.items()}) for case in tested]
    height, width = (max(row.shape[axis] for row in rows) for axis in (0, 1))
    padded = [np.pad(row, ((0, height - row.shape[0]), (0, width - row.shape[1]), (0, 0))) for row in rows]
    Image.fromarray(np.vstack(padded)).save(folder / "few_labels.png")
    print(f"{folder / 'few_labels.png'}: with the Genesis and without it, dashed; the truth is solid")


if __name__ == "__main__":
    main()
