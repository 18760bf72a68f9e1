"""Lung nodules segmented on CT slices: the organ and the task of the paper. Data: LungNodules2D, of LIDC-IDRI.

python benchmarks/evidence/lung_nodules.py DATA --output RUNS [--small | --quick]

Each slice of 128×128 has its nodule in the middle: patches are smaller and not drawn around it, so that its place does
not give it away.
"""

from protocol import SPLITS, Target, main

TARGET = Target(
    name="lung_nodules",
    dims=2,
    scans="LungNodules2D/images",
    labelled="LungNodules2D/nodules.csv",
    splits=(
        SPLITS / "lung_nodules.json",
        SPLITS / "lung_malignancy.json",
    ),
    reading={"modality": "ct-8bit", "patient_pattern": r"(LIDC-IDRI-\d+)"},
    pretraining=("patch_size=64,64",),
    finetuning=("patch_size=96,96", "foreground_share=0", "batch_size=4"),
    labels=("5", "10", "20", "50"),
)

if __name__ == "__main__":
    main(TARGET)
