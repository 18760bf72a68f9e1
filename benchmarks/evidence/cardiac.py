"""Ventricles and myocardium on short-axis MR, slice by slice. Data: CardiacMR, whose weights may not be published.

python benchmarks/evidence/cardiac.py DATA --output RUNS [--small | --quick]

Two volumes are of one patient: the split and the labelled patients are patients.
"""

from protocol import SPLITS, Target, main

TARGET = Target(
    name="cardiac",
    dims=2,
    scans="CardiacMR/imagesTr",
    labelled="CardiacMR",
    splits=(SPLITS / "cardiac.json",),
    reading={"modality": "mri", "patient_pattern": r"(patient\d+)"},
    pretraining=("patch_size=128,128",),
    finetuning=("patch_size=128,128", "batch_size=8", "overlap=0.25"),
    labels=("5", "10", "20"),
)

if __name__ == "__main__":
    main(TARGET)
