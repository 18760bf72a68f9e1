"""Several MR sequences in one network: weights of one channel start a network of four.

Run it: python examples/multi_channel_mri.py
The package ships no MR, so four intensity windows of a real CT stand in for T1, T1 with contrast, T2 and FLAIR.
"""

import torch
from monai.losses.dice import DiceCELoss

import modelsgenesis
from modelsgenesis.configs import CONTRACTS
from modelsgenesis.data import prepare, prepare_label, read_volume
from modelsgenesis.data.cases import sample_folder

WINDOWS = ((-1000, 1000), (-160, 240), (-1000, -400), (100, 900))
GENESIS = "genesis-hippocampus-mri-3d-small"  # in the package; its one channel was T1-weighted MR


def main() -> None:
    one = modelsgenesis.from_pretrained(GENESIS)
    four = modelsgenesis.from_pretrained(GENESIS, in_channels=4)  # the first convolution repeated, divided by four
    image = torch.rand(1, 1, 32, 32, 8)
    gap = (four(image.expand(-1, 4, -1, -1, -1)) - one(image)).abs().max().item()
    print(f"four equal channels give what one gives: largest difference {gap:.1e}")

    name = "c04_ts_abdomen_slab.nii.gz"
    scan = read_volume(sample_folder() / "images" / name)
    channels = [prepare(scan, CONTRACTS["ct"].override(window=window)).array for window in WINDOWS]
    label = prepare_label(read_volume(sample_folder() / "labels" / name), CONTRACTS["ct"]).array == 5  # the liver
    x, y, _ = (int(places.float().mean()) for places in torch.from_numpy(label).nonzero(as_tuple=True))
    crop = (..., slice(x - 24, x + 24), slice(y - 24, y + 24), slice(0, 8))  # sides divide by 8
    image = torch.stack([torch.from_numpy(channel) for channel in channels])[None][crop]  # [1, 4, 48, 48, 8]
    target = torch.from_numpy(label)[None, None][crop].float()

    network = modelsgenesis.from_pretrained(GENESIS, task="seg", num_classes=2, in_channels=4).train()
    print(network.report)
    loss_of = DiceCELoss(to_onehot_y=True, softmax=True)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    for step in range(12):
        loss = loss_of(network(image), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 4 == 3:
            print(f"step {step + 1}: loss {loss.item():.3f}")


if __name__ == "__main__":
    main()
