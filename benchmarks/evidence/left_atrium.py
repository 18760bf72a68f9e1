"""The left atrium on late-enhancement MR. Data: LeftAtrium, whose weights may not be published.

python benchmarks/evidence/left_atrium.py DATA --output RUNS [--small | --quick]
"""

from protocol import SPLITS, Target, main

TARGET = Target(
    name="left_atrium",
    dims=3,
    scans="LeftAtrium/imagesTr",
    labelled="LeftAtrium",
    splits=(SPLITS / "left_atrium.json",),
    reading={"modality": "mri"},
    pretraining=("patch_size=64,64,32",),
    finetuning=("patch_size=64,64,32", "overlap=0.25"),
    labels=("5", "10", "20"),
)

if __name__ == "__main__":
    main(TARGET)
