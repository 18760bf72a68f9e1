"""Load a Genesis and turn image regions into vectors, without any label.

Run it: python examples/load_and_embed.py
"""

import tempfile
from pathlib import Path

import torch
from torch.nn import functional

import modelsgenesis
from modelsgenesis.configs import pretraining_recipe
from modelsgenesis.data import prepare, read_volume, sample_folder


def tiny_genesis() -> Path:
    """Pretrain for seconds; `from_pretrained` takes any name of `modelsgenesis list` just as well."""
    settings = ["network.widths=8,16,32", "patch_size=32,32,12", "validation_samples=8", "workers=0"]
    config = pretraining_recipe("small", steps=10, settings=settings)
    return modelsgenesis.pretrain(sample_folder() / "images", tempfile.mkdtemp(), config=config, modality="ct")


def main() -> None:
    network = modelsgenesis.from_pretrained(tiny_genesis())
    contract = network.bundle.input  # how it wants its scans: modality, intensities, spacing, orientation
    print(f"{network.config.kind} for {contract.modality}, intensities by {contract.intensity} {contract.window}")

    crops = []
    for path in sorted((sample_folder() / "images").iterdir()):
        volume = torch.from_numpy(prepare(read_volume(path), contract).array)
        x, y = (side // 2 - 16 for side in volume.shape[:2])
        starts = (x - 20, x - 17, x + 20)  # two that nearly are one place, and one on the other side
        crops += [volume[start : start + 32, y : y + 32, :12] for start in starts]
    batch = torch.stack(crops)[:, None]  # [9, 1, 32, 32, 12]

    with torch.inference_mode():
        levels = network.features(batch)
    for level in levels:
        print("level:", tuple(level.shape))
    vectors = torch.cat([level.flatten(2).mean(2) for level in levels], dim=1)  # global average of each level
    vectors = vectors - vectors.mean(0)
    similarity = functional.cosine_similarity(vectors[:, None], vectors[None], dim=-1)
    for patient, row in enumerate(similarity[::3].tolist()):
        near, far, other = (row[3 * patient + step] for step in (1, 2, -3))
        print(f"patient {patient}: 3 voxels apart {near:.2f}, 40 voxels apart {far:.2f}, another patient {other:.2f}")


if __name__ == "__main__":
    main()
