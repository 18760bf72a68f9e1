"""A scientist whose scans are arrays and nibabel images in memory, from a fine-tuned model to label maps that open."""

import csv
import json

import nibabel as nib
import numpy as np

SCRIPT = """
import nibabel as nib
import numpy as np

import modelsgenesis

for index in range(2):
    image = nib.load(f"data/imagesTr/p{index}.nii.gz")
    of_image = modelsgenesis.predict("runs/blocks", image, device="cpu")
    array = np.asanyarray(image.dataobj)
    of_array = modelsgenesis.predict("runs/blocks", array, affine=image.affine, device="cpu")
    assert np.array_equal(of_image.labels, of_array.labels)
    nib.save(of_array.image, f"p{index}_seg.nii.gz")
    print(of_array)
try:
    modelsgenesis.predict("runs/blocks", array)
except modelsgenesis.GenesisError as error:
    print(error)
"""
LITTLE = "--steps 4 --set network.widths=8,16 --set patch_size=16,16,16 --set workers=0 --device cpu"


def test_scans_in_memory(user):
    affine = nib.affines.from_matvec(nib.eulerangles.euler2mat(0.1, 0.2, 0.3) @ np.diag([1.0, 1.0, 2.0]), (5, 6, 7))
    for index in range(4):
        block = np.zeros((24, 22, 20), np.uint8)
        block[6:16, 5:15, 4:13] = 1
        scan = np.random.default_rng(index).normal(100, 20, block.shape) + 200 * block
        for kind, array in (("imagesTr", scan.astype(np.float32)), ("labelsTr", block)):
            (user.home / "data" / kind).mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(array, affine), user.home / "data" / kind / f"p{index}.nii.gz")
    pairs = [{"image": f"imagesTr/p{index}.nii.gz", "label": f"labelsTr/p{index}.nii.gz"} for index in range(4)]
    described = {"modality": {"0": "MRI"}, "labels": {"0": "background", "1": "block"}, "training": pairs}
    (user.home / "data" / "dataset.json").write_text(json.dumps(described))
    user.types(f"modelsgenesis finetune data -o runs/blocks --init scratch {LITTLE} -q")
    (user.home / "use.py").write_text(SCRIPT)
    first, second, refused = user.types("python use.py").stdout.splitlines()
    assert first.startswith("Prediction(scan; ")
    assert second.endswith(" mL)")
    assert refused.startswith("array: a volume of 24×22×20 needs its geometry: pass affine=")
    planned = user.types("modelsgenesis predict runs/blocks data/imagesTr --device cpu --dry-run").stdout
    assert "p3.nii.gz\nwould write: predictions/p0.nii.gz, " in planned
    assert not (user.home / "predictions").exists()
    user.types("modelsgenesis predict runs/blocks data/imagesTr --device cpu -q")
    with (user.home / "predictions" / "predictions.csv").open(newline="") as table:
        rows = list(csv.DictReader(table))
    assert [row["file"] for row in rows] == [f"p{index}.nii.gz" for index in range(4)]
    for index, row in enumerate(rows[:2]):
        saved = nib.load(user.home / f"p{index}_seg.nii.gz")
        written = nib.load(user.home / "predictions" / f"p{index}.nii.gz")
        labels = np.asanyarray(saved.dataobj)
        assert np.array_equal(labels, written.dataobj)
        np.testing.assert_allclose(saved.affine, affine, atol=1e-5)
        assert float(row["volume_ml_block"]) == (labels == 1).sum() * 2 / 1000
