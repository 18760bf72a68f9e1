"""A group with chest X-rays: a folder per class, grey PNGs, several images of a patient."""

import csv
import json

import numpy as np
from PIL import Image

TINY = "--steps 6 --set patch_size=64,64 --set batch_size=4 --set validate_every=6 --set validation_fraction=0.25"


def draw(path, seed, ill):
    """Draw two dark lungs, in one of which an ill patient has a bright patch."""
    random = np.random.default_rng(seed)
    x, y = np.meshgrid(np.linspace(-1, 1, 96), np.linspace(-1, 1, 96))
    image = 180 + random.normal(0, 6, x.shape)
    for side in (-0.45, 0.45):
        image[((x - side) / 0.3) ** 2 + (y / 0.7) ** 2 < 1] -= 110
    if ill:
        image[(x - 0.45) ** 2 + (y - random.uniform(-0.3, 0.3)) ** 2 < 0.03] += 90
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(path)


def test_folders_are_classes_and_patients_stay_together(user):
    for patient in range(24):
        folder = "pneumonia" if patient % 4 == 0 else "no_finding"
        for view in range(2):
            draw(user.home / f"xrays/{folder}/{patient:03d}_{view}.png", 10 * patient + view, patient % 4 == 0)
    start = "modelsgenesis finetune xrays --init genesis-chest-xray-2d-small"
    output = user.types(f"{start} --modality xray --patient '^(.*)_' -o runs/chest {TINY}")
    assert "AUC" in output.stdout
    split = json.loads((user.home / "runs/chest/split.json").read_text())
    patients = {part: {name.split("_")[-2].split("/")[-1] for name in names} for part, names in split.items()}
    assert not patients["training"] & patients["test"]
    ill = {f"{patient:03d}" for patient in range(0, 24, 4)}
    assert all(names & ill and names - ill for names in patients.values())  # each class in each part


def test_predictions_are_a_table_that_joins_by_file_name(user):
    user.types("mkdir new && cp xrays/pneumonia/000_0.png xrays/no_finding/001_0.png new/")
    user.types("modelsgenesis predict runs/chest new -o predicted.csv")
    with (user.home / "predicted.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["file"].rpartition("/")[2] for row in rows} == {"000_0.png", "001_0.png"}
    assert all(0 <= float(row["prob_pneumonia"]) <= 1 for row in rows)
    assert {row["predicted"] for row in rows} <= {"pneumonia", "no_finding"}
