"""Along how many directions do the features of a Genesis vary from image to image, and those of random weights?

    python benchmarks/ranks.py DATA/LungNodules2D/images RUN [RUN…]

The effective rank of the features of a level, each averaged over its voxels: the exponential of the entropy of the
squared singular values (Roy and Vetterli, 2007), from 1, all features move together, to the number of channels.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor

import modelsgenesis
from modelsgenesis.data.cases import resize_or_crop
from modelsgenesis.models import GenesisModel
from modelsgenesis.networks import build_network


def effective_rank(samples: Tensor) -> float:
    """Return along how many directions samples [n, channels] vary."""
    shares = torch.linalg.svdvals(samples - samples.mean(dim=0)).square()
    shares = shares[shares > 0] / shares.sum()
    return float(torch.exp(-(shares * shares.log()).sum()))


@torch.no_grad()
def ranks(model: GenesisModel, files: list[Path], *, random: bool = False) -> list[float]:
    """Return the effective rank at each level, of a model or of random weights in its shape."""
    torch.manual_seed(0)
    network = (build_network(model.network.config) if random else model.network).eval()
    means: list[list[Tensor]] = []
    for path in files:
        for one in model.preprocess(path):  # the slices of a volume for a network of two dimensions
            image = torch.from_numpy(resize_or_crop(one.numpy(), model.config.patch_size, "crop"))
            means.append([level.flatten(2).mean(dim=2)[0] for level in network.features(image[None])])
    return [effective_rank(torch.stack(level)) for level in zip(*means, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("images", type=Path, help="a folder")
    parser.add_argument("models", nargs="+")
    parser.add_argument("--count", type=int, default=256)
    given = parser.parse_args()
    files = sorted(path for path in given.images.iterdir() if path.is_file())[: given.count]
    for name in given.models:
        model = modelsgenesis.from_pretrained(name)
        for what, found in {name: ranks(model, files), "random weights": ranks(model, files, random=True)}.items():
            print(f"{what}: {', '.join(f'{rank:.1f}' for rank in found)}")


if __name__ == "__main__":
    main()
