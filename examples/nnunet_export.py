"""From your own unlabelled scans to nnU-Net v2's `-pretrained_weights`.

Run it: python examples/nnunet_export.py
nnU-Net builds plain or residual U-Nets, so such a one is pretrained; its plan must have the same shape.
"""

import json
import tempfile
from pathlib import Path

import torch

import modelsgenesis
from modelsgenesis.checkpoints import export_bundle
from modelsgenesis.configs import PlainUNetConfig, PretrainingConfig
from modelsgenesis.data.cases import sample_folder


def main() -> None:
    folder = Path(tempfile.mkdtemp())
    # The shape that your nnUNetPlans.json names; this one is far smaller than any that nnU-Net plans.
    network = PlainUNetConfig(widths=(8, 16, 32), strides=((1, 1, 1), (2, 2, 2), (2, 2, 1)), output="sigmoid")
    config = PretrainingConfig(
        network=network, patch_size=(32, 32, 12), steps=10, learning_rate=3e-3, validation_samples=8, workers=0
    )
    run = modelsgenesis.pretrain(sample_folder() / "images", folder / "genesis", config=config, modality="ct")

    file = export_bundle(modelsgenesis.load_bundle(run), folder / "genesis.pth", to="nnunet")
    checkpoint = torch.load(file, weights_only=True)
    weights = checkpoint.pop("network_weights")
    print(f"{file.name}: {len(weights)} names, among them")
    for name in list(weights)[:3]:
        print(f"  {name} {tuple(weights[name].shape)}")
    print("its plan:", json.dumps(checkpoint)[:300], "…")
    print("then: nnUNetv2_train DATASET 3d_fullres 0 -p YOUR_PLANS -pretrained_weights genesis.pth")


if __name__ == "__main__":
    main()
