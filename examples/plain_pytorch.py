"""The network and the deformations in a plain PyTorch loop, for those who have a loop of their own.

Run it: python examples/plain_pytorch.py
"""

import torch
from torch.nn import functional

from modelsgenesis import BundleConfig, Deformation, GenesisUNet, GenesisUNetConfig, load_bundle, save_pretrained
from modelsgenesis.configs import CONTRACTS, Provenance
from modelsgenesis.data import prepare, read_volume
from modelsgenesis.data.cases import sample_folder
from modelsgenesis.pretext import draw_seeds


def main() -> None:
    path = sorted((sample_folder() / "images").iterdir())[0]
    volume = torch.from_numpy(prepare(read_volume(path), CONTRACTS["ct"]).array)
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    network = GenesisUNet(GenesisUNetConfig(widths=(8, 16, 32), norm="instance")).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    deform = Deformation()  # all four, as published

    for step in range(20):
        starts = [[int(torch.randint(side - 32, (), generator=generator)) for side in volume.shape] for _ in range(4)]
        batch = torch.stack([volume[None, x : x + 32, y : y + 32, z : z + 32] for x, y, z in starts])
        deformed, original = deform(batch, draw_seeds(len(batch), generator))
        loss = functional.mse_loss(network(deformed), original)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 5 == 0:
            print(f"step {step}: loss {loss.item():.4f}, of the identity {(deformed - original).square().mean():.4f}")

    config = BundleConfig(
        task="restoration",
        network=network.config,
        input=CONTRACTS["ct"],
        patch_size=(32, 32, 32),
        provenance=Provenance(origin="pretrained", library_version="example"),
    )
    folder = save_pretrained(network, "plain-genesis", config)
    print(f"{folder}: {sum(p.numel() for p in load_bundle(folder).network.parameters()):,} parameters")


if __name__ == "__main__":
    main()
