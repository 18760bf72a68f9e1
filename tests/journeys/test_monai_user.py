"""A MONAI user: dictionaries and a DataLoader of their own, two steps of their own loop, a label map that opens."""

import nibabel as nib
import numpy as np

SCRIPT = """
import nibabel as nib
import torch
from monai.data import DataLoader, Dataset
from monai.losses import DiceCELoss
from monai.transforms import Compose, RandCropByPosNegLabeld, SaveImage

import modelsgenesis

model = modelsgenesis.from_pretrained("genesis-hippocampus-mri-3d-small", task="seg", labels=["background", "bright"])
prepare = modelsgenesis.monai_transforms(model)
crop = RandCropByPosNegLabeld(["image", "label"], "label", (16, 16, 16), num_samples=2)
samples = [{"image": f"images/p{index}.nii.gz", "label": f"labels/p{index}.nii.gz"} for index in range(2)]
loader = DataLoader(Dataset(samples, Compose([prepare, crop])), batch_size=1, num_workers=1)
loss_of, optimizer = DiceCELoss(to_onehot_y=True, softmax=True), torch.optim.AdamW(model.parameters(), 1e-3)
for batch in loader:
    loss = loss_of(model(batch["image"]), batch["label"])
    loss.backward()
    optimizer.step()
    print(f"loss {loss.item():.3f}")
with torch.inference_mode():
    sample = prepare({"image": "images/p1.nii.gz"})["image"]
    found = model.eval()(sample[None])[0].argmax(0, keepdim=True)
SaveImage("monai", output_dtype="uint8", resample=False, separate_folder=False, print_log=False)(found)
nib.save(modelsgenesis.predict(model, "images/p1.nii.gz").image, "native.nii.gz")
print(model.save_pretrained("model"))
"""


def test_a_loop_of_ones_own_with_monai(user):
    affine = nib.affines.from_matvec(np.diag([-1.0, -1.0, 1.5]), (30.5, 21.25, -7))
    for index in range(2):
        bright = np.zeros((30, 26, 21), np.uint8)
        bright[8:20, 6 + index : 16, 5:14] = 1
        scan = np.random.default_rng(index).normal(100, 20, bright.shape) + 150 * bright
        for kind, array in (("images", scan.astype(np.float32)), ("labels", bright)):
            (user.home / kind).mkdir(exist_ok=True)
            nib.save(nib.Nifti1Image(array, affine), user.home / kind / f"p{index}.nii.gz")
    (user.home / "train.py").write_text(SCRIPT)
    lines = user.types("python train.py").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["loss", "loss", "model"]
    [saved] = (user.home / "monai").glob("p1*.nii.gz")
    own, native = nib.load(saved), nib.load(user.home / "native.nii.gz")
    assert nib.aff2axcodes(own.affine) == ("R", "A", "S")  # on the prepared grid, where viewers lay it over the scan
    np.testing.assert_allclose(native.affine, affine, atol=1e-5)
    assert native.shape == (30, 26, 21)
    assert set(np.unique(np.asanyarray(native.dataobj))) <= {0, 1}
    predicted = user.types("modelsgenesis predict model images/p0.nii.gz --device cpu").stdout
    assert predicted.splitlines()[0] == "p0_seg.nii.gz"
    assert "mL" in predicted
