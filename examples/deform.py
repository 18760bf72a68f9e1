"""What the four deformations do to a real CT: draws `deformations.png`.

Run it: python examples/deform.py
"""

import torch

from modelsgenesis.configs import CONTRACTS, SCHEMES
from modelsgenesis.data import prepare, read_volume
from modelsgenesis.data.cases import sample_folder
from modelsgenesis.figures import draw_pictures, middle_slice
from modelsgenesis.pretext import Deformation, draw_seeds

SHOWN = {"intensity": "I", "shuffling": "II", "out-painting": "III", "in-painting": "IV", "all": "V"}


def main() -> None:
    path = sorted((sample_folder() / "images").iterdir())[0]
    scan = prepare(read_volume(path), CONTRACTS["ct"])  # RAS, HU −1000…1000 scaled to [0, 1]
    starts = [(10, 20, 40), (30, 30, 60), (50, 25, 20), (25, 35, 75)]
    cubes = [scan.array[x : x + 64, y : y + 64, z : z + 32] for x, y, z in starts]
    batch = torch.stack([torch.from_numpy(cube)[None] for cube in cubes])  # [4, 1, 64, 64, 32]

    seeds = draw_seeds(len(batch), torch.Generator().manual_seed(0))
    columns = [batch]
    for name in SHOWN.values():
        # Without flips the original beside them is what a network would restore.
        config = SCHEMES[name].override(flip_probability=0.0)
        x, y = Deformation(config)(batch, seeds)
        assert torch.equal(y, batch)
        columns.append(x)
    rows = [[middle_slice(cube[0].numpy()) for cube in row] for row in zip(*columns, strict=True)]
    path = draw_pictures(rows, ["original", *SHOWN], "deformations.png", title="Deformations of Models Genesis")
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
