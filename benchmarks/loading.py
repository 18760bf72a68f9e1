"""How long a warm load takes beside what it cannot do without: reading the tensors and building the network.

    python benchmarks/loading.py

Everything is measured in turns in one process, and the median of the ratios is printed: at most 1.5 is wanted
for a warm `from_pretrained("genesis-chest-ct-3d")`. Before, the file is published on a Hub on the loopback
interface; its weights are random.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / folder) for folder in ("src", "tests")]


def seconds(work: Callable[[], object]) -> float:
    """Time one run, whose result is kept until the clock has stopped."""
    start = time.perf_counter()
    result = work()
    end = time.perf_counter()
    del result
    return end - start


def publish(url_holder: object, folder: Path) -> None:
    """Put a file of the 2019 release, with random weights, where the registry looks for it."""
    from modelsgenesis.checkpoints import Bundle, export_bundle
    from modelsgenesis.configs import CONTRACTS, GENESIS_UNET_2019, BundleConfig, Provenance
    from modelsgenesis.networks import build_network

    config = BundleConfig(
        task="restoration",
        network=GENESIS_UNET_2019,
        input=CONTRACTS["ct"],
        patch_size=(64, 64, 32),
        provenance=Provenance(origin="untrained", library_version="0"),
    )
    bundle = Bundle(build_network(GENESIS_UNET_2019).eval(), config)
    file = export_bundle(bundle, folder / "Genesis_Chest_CT.pt", to="torch")
    url_holder.add("MrGiovanni/ModelsGenesis", {file.name: file.read_bytes()})  # type: ignore[attr-defined]


def measure(runs: int) -> dict[str, list[float]]:
    """Return the ratio of each way to load to the baseline, run by run."""
    import torch
    from safetensors.torch import load_file

    import modelsgenesis
    from modelsgenesis.checkpoints import load_bundle
    from modelsgenesis.configs import GENESIS_UNET_2019
    from modelsgenesis.hub.download import fetch_bundle
    from modelsgenesis.networks import build_network

    name = "genesis-chest-ct-3d"
    cold = seconds(lambda: modelsgenesis.from_pretrained(name))
    print(f"cold, with download and conversion: {cold:.2f} s")
    folder = fetch_bundle(name)

    def baseline() -> object:
        weights = load_file(folder / "model.safetensors")
        with torch.device("meta"):
            return weights, build_network(GENESIS_UNET_2019)

    ways: dict[str, Callable[[], object]] = {
        "load_bundle, every value checked": lambda: load_bundle(folder),
        "load_bundle, values taken on trust": lambda: load_bundle(folder, check_values=False),
        "fetch_bundle from the warm cache": lambda: fetch_bundle(name),
        "from_pretrained from the warm cache": lambda: modelsgenesis.from_pretrained(name),
    }
    ratios: dict[str, list[float]] = {way: [] for way in ways}
    base: list[float] = []
    for _ in range(runs):
        base.append(seconds(baseline))
        for way, work in ways.items():
            ratios[way].append(seconds(work) / base[-1])
    print(f"baseline, load_file and a network on the meta device: {1e3 * statistics.median(base):.1f} ms")
    return ratios


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=30)
    arguments = parser.parse_args()
    import pytest

    from loopback_hub import connected

    patched = pytest.MonkeyPatch.context()
    with tempfile.TemporaryDirectory() as folder, patched as patch, connected(patch) as server:
        os.environ |= {"HF_ENDPOINT": server.url, "HF_HOME": folder, "HF_HUB_DISABLE_XET": "1"}
        os.environ.pop("MODELSGENESIS_CACHE", None)
        os.environ.pop("MODELSGENESIS_CARDS", None)
        publish(server, Path(folder))
        for way, ratios in measure(arguments.runs).items():
            print(f"{way:<40}{statistics.median(ratios):6.2f} times the baseline")


if __name__ == "__main__":
    main()
