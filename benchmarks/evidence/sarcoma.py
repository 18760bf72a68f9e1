"""Soft-tissue sarcomas on CT, most of them of the thigh. Data: SarcomaCT.

python benchmarks/evidence/sarcoma.py DATA --output RUNS [--small | --quick]
"""

from protocol import SPLITS, Target, main

TARGET = Target(
    name="sarcoma",
    dims=3,
    scans="SarcomaCT/imagesTr",
    labelled="SarcomaCT",
    splits=(SPLITS / "sarcoma.json",),
    reading={"modality": "ct"},
    pretraining=("patch_size=64,64,32",),
    finetuning=("patch_size=64,64,32", "overlap=0.25"),
    labels=("5", "10", "20"),
)

if __name__ == "__main__":
    main(TARGET)
