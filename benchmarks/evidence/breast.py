"""Breast ultrasound told normal, benign or malignant. Data: BreastUS, of BUSI; its patients are not known.

python benchmarks/evidence/breast.py DATA --output RUNS [--small | --quick]
"""

from protocol import SPLITS, Target, main

TARGET = Target(
    name="breast",
    dims=2,
    scans="BreastUS",
    labelled="BreastUS",
    splits=(SPLITS / "breast.json",),
    reading={"modality": "ultrasound"},
    pretraining=("patch_size=128,128",),
    finetuning=("patch_size=128,128", "hidden=0"),
    labels=("50", "100", "200"),
)

if __name__ == "__main__":
    main(TARGET)
