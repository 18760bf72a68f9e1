"""Load a Genesis and turn image regions into vectors, without any label.

Run it: python examples/load_and_embed.py
The Genesis is in the package and learnt from MR; the package ships CT alone, so CT it must be. The calls are the same.
"""

import torch
from torch.nn import functional

import modelsgenesis
from modelsgenesis.data import prepare, read_volume
from modelsgenesis.data.cases import sample_folder


def main() -> None:
    network = modelsgenesis.from_pretrained("genesis-hippocampus-mri-3d-small")  # or any name of `modelsgenesis list`
    contract = network.config.input  # how it wants its scans: modality, intensities, spacing, orientation
    print(network, "with intensities by", contract.intensity, contract.percentiles)

    crops = []
    for path in sorted((sample_folder() / "images").iterdir()):
        volume = torch.from_numpy(prepare(read_volume(path), contract).array)
        x, y = (side // 2 - 16 for side in volume.shape[:2])
        starts = (x - 20, x - 17, x + 20)  # two that nearly are one place, and one on the other side
        crops += [volume[start : start + 32, y : y + 32, :8] for start in starts]
    batch = torch.stack(crops)[:, None]  # [9, 1, 32, 32, 8]

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
