"""Chest X-rays told with a finding of pneumonia from without one. Data: chestxray8, of ChestX-ray8.

python benchmarks/evidence/chestxray8.py DATA --output RUNS [--small | --quick]

The grey values alone tell the classes apart to some degree: pretraining leaves the intensity map out.
"""

from protocol import SPLITS, Target, main

TARGET = Target(
    name="chestxray8",
    dims=2,
    scans="chestxray8",
    labelled="chestxray8",
    splits=(SPLITS / "chestxray8.json",),
    reading={"modality": "xray", "patient_pattern": r"^(\d+)_"},
    pretraining=(
        "patch_size=128,128",
        "pretext.intensity_probability=0",
    ),
    finetuning=("patch_size=128,128", "hidden=0"),
    labels=("50", "100", "200"),
)

if __name__ == "__main__":
    main(TARGET)
