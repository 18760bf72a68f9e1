"""Fine-tune a classifier on one folder per class, from a Genesis and from scratch.

Run it: python examples/classify.py
The package ships no labelled 2D images, so patches of CT slices serve: liver or spleen? One patient trains, one tests,
with toy budgets: this shows the calls. Whether a Genesis helps is what `modelsgenesis compare` answers.
"""

import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

import modelsgenesis
from modelsgenesis.configs import CONTRACTS, ClassificationConfig
from modelsgenesis.data import prepare, prepare_label, read_volume
from modelsgenesis.data.cases import sample_folder

CONTRACT = CONTRACTS["ct"].override(window=(-200.0, 300.0))  # soft tissue
GENESIS = "genesis-chest-xray-2d-small"  # in the package
ORGANS = {"liver": 5, "spleen": 1}  # in TotalSegmentator's numbering


def write_patches(folder: Path, side: int = 48, count: int = 60) -> None:
    """Write PART/CLASS/PATIENT_NUMBER.png: the parts and classes are folders, the patient leads the name."""
    random = np.random.default_rng(0)
    for part, name in (("train", "c02_ts_trunk"), ("test", "c04_ts_abdomen_slab")):
        image, label = (sample_folder() / kind / f"{name}.nii.gz" for kind in ("images", "labels"))
        grey = (255 * prepare(read_volume(image), CONTRACT).array).astype(np.uint8)
        grey = np.pad(grey, ((side // 2,) * 2, (side // 2,) * 2, (0, 0)))
        organs = prepare_label(read_volume(label), CONTRACT).array
        for organ, value in ORGANS.items():
            place = folder / part / organ
            place.mkdir(parents=True)
            for number, (x, y, z) in enumerate(random.choice(np.argwhere(organs == value), count)):
                patch = grey[x : x + side, y : y + side, z]
                Image.fromarray(np.rot90(patch)).save(place / f"{name[:3]}_{number:03d}.png")


def main() -> None:
    folder = Path(tempfile.mkdtemp())
    write_patches(folder / "patches")
    config = ClassificationConfig(
        patch_size=(48, 48), steps=30, warmup_steps=5, hidden=0, validation_fraction=0.0, workers=0
    )
    for name, from_scratch in (("scratch", True), ("genesis", False)):
        run, measured = modelsgenesis.finetune(
            folder / "patches", folder / f"from-{name}", init=GENESIS, from_scratch=from_scratch, config=config
        )
        print(f"{name}: AUC {measured['auc']:.3f} on patches of the other patient, each in {run / 'test.csv'}")


if __name__ == "__main__":
    main()
