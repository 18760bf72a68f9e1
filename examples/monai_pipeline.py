"""A Genesis in a MONAI pipeline: MONAI crops, trains and infers; ours are the network and what prepares its scans.

Run it: python examples/monai_pipeline.py
"""

import tempfile

import monai.transforms as mt
import torch
from monai.data import DataLoader, Dataset
from monai.inferers import SlidingWindowInferer
from monai.losses import DiceCELoss
from monai.metrics import DiceMetric
from monai.utils import set_determinism

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
    network = modelsgenesis.from_pretrained(genesis, task="seg", num_classes=2)
    keys, names = ["image", "label"], ("c02_ts_trunk.nii.gz", "c04_ts_abdomen_slab.nii.gz")
    files = [{key: str(sample_folder() / f"{key}s" / name) for key in keys} for name in names]
    # Scans are read and prepared as the weights expect them; what follows is MONAI's.
    load = [modelsgenesis.monai_transforms(network), mt.Lambdad("label", lambda label: label == LIVER)]
    crop = mt.RandCropByPosNegLabeld(keys, "label", PATCH, pos=2, num_samples=8)
    loader = DataLoader(Dataset(files[:1] * 6, mt.Compose([*load, crop])), batch_size=1)
    optimizer, loss_of = (
        torch.optim.AdamW(network.train().parameters(), lr=5e-3),
        DiceCELoss(to_onehot_y=True, softmax=True),
    )
    for step, batch in enumerate(loader):
        loss = loss_of(network(batch["image"]), batch["label"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(f"step {step + 1}: loss {loss.item():.3f}")

    dice, test = DiceMetric(include_background=False), mt.Compose(load)(files[1])
    with torch.inference_mode():
        logits = SlidingWindowInferer(PATCH, sw_batch_size=8, overlap=0.25)(test["image"][None], network.eval())
    dice(mt.AsDiscrete(argmax=True, to_onehot=2)(logits[0])[None], mt.AsDiscrete(to_onehot=2)(test["label"])[None])
    print(f"Dice of the liver on the other patient, after {len(loader)} steps: {dice.aggregate().item():.2f}")


if __name__ == "__main__":
    main()
