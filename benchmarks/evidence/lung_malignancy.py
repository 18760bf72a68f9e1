"""Lung nodules told benign from malignant. Data: LungNodules2D, of LIDC-IDRI; labels are counted in patients.

python benchmarks/evidence/lung_malignancy.py DATA --output RUNS [--small | --quick]

Each slice of 128×128 has its nodule in the middle, as both starts see it: the question is of nodules already found.
"""

from protocol import SPLITS, Target, main

TARGET = Target(
    name="lung_malignancy",
    dims=2,
    scans="LungNodules2D/images",
    labelled="LungNodules2D/malignancy.csv",
    splits=(
        SPLITS / "lung_malignancy.json",
        SPLITS / "lung_nodules.json",
    ),
    reading={"modality": "ct-8bit", "patient_pattern": r"(LIDC-IDRI-\d+)"},
    pretraining=("patch_size=64,64",),
    finetuning=("patch_size=64,64", "fit=crop", "hidden=0"),
    labels=("50", "100", "200"),
)

if __name__ == "__main__":
    main(TARGET)
