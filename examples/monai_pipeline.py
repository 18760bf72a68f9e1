"""A Genesis in a MONAI pipeline: MONAI crops, trains and infers; ours are the network and what prepares its scans.

Run it: python examples/monai_pipeline.py
"""

import tempfile
from typing import Any

import torch
from monai.data.dataloader import DataLoader
from monai.data.dataset import Dataset
from monai.inferers.inferer import SlidingWindowInferer
from monai.losses.dice import DiceCELoss
from monai.metrics.meandice import compute_dice
from monai.networks.utils import one_hot
from monai.transforms.compose import Compose
from monai.transforms.croppad.dictionary import RandCropByPosNegLabeld
from monai.transforms.utility.dictionary import Lambdad
from monai.utils.misc import set_determinism

import modelsgenesis
from modelsgenesis.configs import pretraining_recipe
from modelsgenesis.data.cases import sample_folder

PATCH = (32, 32, 12)
LIVER = 5  # in TotalSegmentator's numbering
TINY = ["network.widths=8,16,32", "patch_size=32,32,12", "validation_samples=8", "workers=0"]


def main() -> None:
    set_determinism(0)
    config = pretraining_recipe("small", steps=10, settings=TINY)  # seconds; a name of `modelsgenesis list` serves too
    genesis = modelsgenesis.pretrain(sample_folder() / "images", tempfile.mkdtemp(), config=config, modality="ct")
    model = modelsgenesis.from_pretrained(genesis, task="seg", labels=["background", "liver"])
    keys, names = ["image", "label"], ("c02_ts_trunk.nii.gz", "c04_ts_abdomen_slab.nii.gz")
    files = [{key: str(sample_folder() / f"{key}s" / name) for key in keys} for name in names]
    # Scans are read and prepared as the weights expect them; what follows is MONAI's.
    prepare = Compose([modelsgenesis.monai_transforms(model), Lambdad("label", lambda label: label == LIVER)])
    crop = RandCropByPosNegLabeld(keys, "label", PATCH, pos=2, num_samples=8)
    loader = DataLoader(Dataset(files[:1] * 6, Compose([prepare, crop])), batch_size=1)
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=5e-3)
    loss_of = DiceCELoss(to_onehot_y=True, softmax=True)
    for step, batch in enumerate(loader):
        loss = loss_of(model(batch["image"]), batch["label"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(f"step {step + 1}: loss {loss.item():.3f}")

    test: Any = prepare(files[1])
    with torch.inference_mode():
        logits: Any = SlidingWindowInferer(PATCH, sw_batch_size=8, overlap=0.25)(test["image"][None], model.eval())
    found, truth = one_hot(logits.argmax(1, keepdim=True), 2), one_hot(test["label"][None], 2)
    dice = compute_dice(found, truth, include_background=False).item()
    print(f"Dice of the liver on the other patient, after {len(loader)} steps: {dice:.2f}")
    prediction = modelsgenesis.predict(model, files[1]["image"])  # the same in the scan's own geometry
    print(prediction, prediction.image.shape)


if __name__ == "__main__":
    main()
