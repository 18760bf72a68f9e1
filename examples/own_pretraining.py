"""A Genesis of your own scans: any folder of NIfTI, DICOM, MetaImage, NRRD or images. Here the embedded CT sample.

Run it: python examples/own_pretraining.py
The budget is a toy: it shows the calls and what to look at, not the method's worth.
"""

import tempfile
from pathlib import Path

import modelsgenesis
from modelsgenesis.checkpoints import read_config
from modelsgenesis.configs import pretraining_recipe
from modelsgenesis.data.cases import sample_folder
from modelsgenesis.inspection import inspect_scans


def main() -> None:
    folder, scans = Path(tempfile.mkdtemp()), sample_folder() / "images"
    found = inspect_scans(scans)  # what is there, and what would be skipped, before hours of work
    print(f"{len(found.scans)} scans, {len(found.skipped)} skipped")

    config = pretraining_recipe(
        "small",
        steps=20,
        settings=["network.widths=8,16,32", "patch_size=32,32,12", "learning_rate=3e-3", "warmup_steps=5", "workers=0"],
    )
    run = modelsgenesis.pretrain(scans, folder / "genesis", config=config, modality="ct")
    results = read_config(run).provenance.results
    for name in ("restoration_loss", "mean_image_loss", "identity_loss"):
        print(f"{name:>17} {results[name]:.4f}")
    # Below both of the others it has learnt something; between them, go on: more steps, more scans.

    longer = modelsgenesis.pretrain(scans, folder / "longer", init=run, config=config, modality="ct")
    print(f"after as many steps again: {read_config(longer).provenance.results['restoration_loss']:.4f}")
    network = modelsgenesis.from_pretrained(longer, task="cls", num_classes=2)
    print(network.report)
    print("the bundle:", *sorted(path.name for path in longer.iterdir()))


if __name__ == "__main__":
    main()
