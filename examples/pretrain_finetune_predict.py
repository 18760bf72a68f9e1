"""From unlabelled scans to a label map, in Python. The budgets are toys: they show the calls, not the method's worth.

Run it: python examples/pretrain_finetune_predict.py
"""

import tempfile
from pathlib import Path

import modelsgenesis
from modelsgenesis.configs import GenesisUNetConfig, PretrainingConfig, SegmentationConfig
from modelsgenesis.data import sample_data, sample_folder
from modelsgenesis.training import Split

NETWORK = GenesisUNetConfig(widths=(8, 16, 32), norm="instance")
PATCH = (32, 32, 12)


def main() -> None:
    folder = Path(tempfile.mkdtemp())
    genesis = modelsgenesis.pretrain(
        sample_folder() / "images",
        folder / "genesis",
        config=PretrainingConfig(network=NETWORK, patch_size=PATCH, steps=20, validation_samples=8, workers=0),
        modality="ct",
    )
    network = modelsgenesis.from_pretrained(genesis, task="seg", num_classes=4)
    print(network.adaptation.summary())

    data = sample_data()
    training, test = (case.name for case in data.cases)
    run, dice = modelsgenesis.finetune(
        data,
        folder / "organs",
        init=genesis,
        config=SegmentationConfig(network=NETWORK, patch_size=PATCH, steps=20, samples_per_scan=32, workers=0),
        split=Split(training=(training,), validation=(), test=(test,)),
    )
    print("Dice on the other patient:", {name: round(value, 3) for name, value in dice.items()})
    prediction = modelsgenesis.predict(run, data.cases[1].images[0].path, output=folder / "organs.nii.gz")
    print(prediction.path, prediction.voxels)


if __name__ == "__main__":
    main()
