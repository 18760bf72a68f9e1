"""The hippocampus and its two parts on MR. Data: Task04_Hippocampus of the Medical Segmentation Decathlon.

python benchmarks/evidence/hippocampus.py DATA --output RUNS [--small | --quick]
"""

from protocol import SPLITS, Target, main

TARGET = Target(
    name="hippocampus",
    dims=3,
    scans="Task04_Hippocampus/imagesTr",
    labelled="Task04_Hippocampus",
    splits=(SPLITS / "hippocampus.json",),
    reading={"modality": "mri"},
    pretraining=("patch_size=32,32,24",),
    finetuning=("patch_size=32,40,32", "batch_size=4", "overlap=0.25"),
    labels=("3", "5", "10", "20"),
)

if __name__ == "__main__":
    main(TARGET)
