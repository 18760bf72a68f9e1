"""Fine-tune a segmentation model from a Genesis, then segment a scan in its own geometry.

Run it: python examples/segment.py
One CT patient to train on, one to test on, a toy budget, and a Genesis that learnt from MR, the one that is shipped:
this shows the calls, not the method's worth.
"""

import tempfile
from dataclasses import replace
from pathlib import Path

import modelsgenesis
from modelsgenesis.configs import SegmentationConfig
from modelsgenesis.data.cases import sample_data, sample_folder
from modelsgenesis.training.splits import Split

GENESIS = "genesis-hippocampus-mri-3d-small"


def main() -> None:
    folder, scans = Path(tempfile.mkdtemp()), sample_folder() / "images"
    # The liver alone of all that is labelled: value 5 in TotalSegmentator's numbering; other values are background.
    data = replace(sample_data(), labels=("background", "liver"), values=((0,), (5,)))
    training, test = (case.name for case in data.cases)
    print(f"{', '.join(data.labels[1:])}: from {training} to {test}")
    config = SegmentationConfig(
        patch_size=(32, 32, 8),
        steps=40,
        warmup_steps=5,
        learning_rate=5e-3,
        samples_per_scan=32,
        foreground_share=0.75,
        augment=False,
        batch_size=4,
        workers=0,
    )
    split = Split(training=(training,), validation=(), test=(test,))
    run, measured = modelsgenesis.finetune(data, folder / "organs", init=GENESIS, config=config, split=split)
    for name, value in measured.items():
        print(
            f"{name}: {value:.3f}"
        )  # of the other patient; with intervals in results.json, one row per case in test.csv

    prediction = modelsgenesis.predict(run, scans / "c04_ts_abdomen_slab.nii.gz", output=folder / "organs.nii.gz")
    print(prediction.path, prediction.voxels)


if __name__ == "__main__":
    main()
