"""Turn a data set of MedMNIST into images and a table for `finetune` and `compare`.

Run it: python docs/recipes/medmnist.py adrenalmnist3d_64.npz FOLDER
Planes become PNG, a file for each colour, and volumes become NIfTI without a voxel size that means anything. The table
keeps the published parts; each image is its own patient. Say what the images are: `--modality shape` for masks.
"""

import csv
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image

COLOURS = ("red", "green", "blue")


def convert(archive: Path, folder: Path) -> Path:
    """Write the images and `labels.csv`, and return the table."""
    rows = [("image", "label", "patient", "split")]
    with np.load(archive) as arrays:
        images = {key.removesuffix("_images"): arrays[key] for key in arrays.files if key.endswith("_images")}
        labels = {part: arrays[f"{part}_labels"] for part in images}
    digits = len(str(max(map(len, images.values())) - 1))  # so that names sort as the images do
    for part, stack in images.items():
        for number, (image, label) in enumerate(zip(stack, labels[part], strict=True)):
            name = f"{part}_{number:0{digits}d}"
            channels = {"images": image}
            if image.shape[-1] == len(COLOURS):
                channels = {colour: image[..., index] for index, colour in enumerate(COLOURS)}
            files = []
            for channel, values in channels.items():
                file = folder / channel / f"{name}{'.png' if values.ndim == 2 else '.nii.gz'}"
                file.parent.mkdir(parents=True, exist_ok=True)
                if values.ndim == 2:
                    Image.fromarray(values).save(file)
                else:
                    nib.save(nib.Nifti1Image(values, np.eye(4)), file)
                files.append(f"{channel}/{file.name}")
            held = np.flatnonzero(label) if len(label) > 1 else label  # columns of 0 and 1, or the number of the class
            rows.append((";".join(files), ";".join(map(str, held)), name, part))
    table = folder / "labels.csv"
    with table.open("w", newline="") as opened:
        csv.writer(opened).writerows(rows)
    return table


if __name__ == "__main__":
    print(convert(Path(sys.argv[1]), Path(sys.argv[2])))
