"""How long a sliding window takes beside a direct call of MONAI's, with the same network, windows and overlap.

    python benchmarks/inference.py
    python benchmarks/inference.py --scan cxr.nii.gz --spacing 1.5,1.5,2.5 --memory

All ways take turns in one process; the median of the ratios is printed, above 1 where this package is faster. MONAI is
called as its documentation does: the network as it was built, four windows at once, Gaussian weights. Beside it stands
the same call with this package's memory layout, so that only what the sliding window itself saves is left.

With a scan, and `--memory`, the peak of a whole prediction is printed, in volumes of the scan's size in float32.
"""

import argparse
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

OVERLAP, CLASSES = 0.5, 3


def seconds(work: Callable[[], object], clock: Callable[[], float]) -> float:
    """Time one run."""
    start = clock()
    work()
    return clock() - start


def images(side: int, patch: tuple[int, ...]) -> dict[str, object]:
    """Return prepared images: noise, noise beside emptiness as where a field of view ends, one within a window."""
    import torch

    generator = torch.Generator().manual_seed(0)
    shape = (1, side, side, side)
    noise = torch.rand(shape, generator=generator)
    half = noise.clone()
    half[:, : side // 2] = 0
    small = torch.rand((1, *patch), generator=generator)[:, :, :-3]
    return {"noise": noise, "half empty": half, "one window": small}


def measure(arguments: argparse.Namespace) -> None:
    """Print the ratios."""
    import torch
    from monai.inferers.utils import sliding_window_inference

    from modelsgenesis.configs import GenesisUNetConfig, PredictionConfig
    from modelsgenesis.hardware import choose_hardware
    from modelsgenesis.inference.sliding_window import sliding_window
    from modelsgenesis.networks import build_network

    clock = time.process_time if arguments.clock == "cpu" else time.perf_counter
    hardware = choose_hardware("cpu", arguments.precision)
    print(f"{hardware.device}, {hardware.precision}; {arguments.clock} time")
    patch = tuple(int(side) for side in arguments.patch.split(","))
    widths = tuple(int(width) for width in arguments.widths.split(","))
    shape = GenesisUNetConfig(widths=widths, norm="instance", out_channels=CLASSES, output="linear")
    torch.manual_seed(0)
    plain = build_network(shape).eval()
    placed = build_network(shape).eval()
    placed.load_state_dict(plain.state_dict())
    hardware.place(placed)

    def monai(network: Callable[[object], object], image: object) -> object:
        with torch.no_grad():
            return sliding_window_inference(image[None], patch, 4, network, overlap=OVERLAP, mode="gaussian")  # type: ignore[index]

    def laid_out(windows: object) -> object:
        with hardware.autocast():
            return placed(hardware.place(windows)).float()  # type: ignore[arg-type]

    for name, image in images(arguments.side, patch).items():
        ways: dict[str, Callable[[object], object]] = {
            "MONAI": lambda one: monai(plain, one),
            "MONAI, channels last": lambda one: monai(laid_out, one),
        }

        def ours(one: object, at_once: int = arguments.windows) -> object:
            return sliding_window(
                placed,
                one,  # type: ignore[arg-type]
                patch_size=patch,
                config=PredictionConfig(overlap=OVERLAP, windows_at_once=at_once),
                hardware=hardware,
            )

        difference = (ours(image) - monai(laid_out, image)[0]).abs().max()  # type: ignore[index, operator]
        ratios: dict[str, list[float]] = {way: [] for way in ways}
        times = []
        for _ in range(arguments.runs):
            mine = seconds(lambda image=image: ours(image), clock)
            times.append(mine)
            for way, work in ways.items():
                ratios[way].append(seconds(lambda work=work, image=image: work(image), clock) / mine)
        shown = ", ".join(f"{statistics.median(values):.2f} times {way}" for way, values in ratios.items())
        print(f"{name:>14}: {shown}; {statistics.median(times):.2f} s, largest difference {float(difference):.1e}")


def write_model(folder: Path, spacing: str | None, widths: str) -> Path:
    """Write an untrained model of CT."""
    import torch

    from modelsgenesis.checkpoints import Bundle, save_bundle
    from modelsgenesis.configs import CONTRACTS, BundleConfig, GenesisUNetConfig, Provenance
    from modelsgenesis.networks import build_network

    sizes = None if spacing is None else [float(size) for size in spacing.split(",")]
    layers = tuple(int(width) for width in widths.split(","))
    network = GenesisUNetConfig(widths=layers, norm="instance", out_channels=CLASSES, output="linear")
    config = BundleConfig(
        task="segmentation",
        network=network,
        input=CONTRACTS["ct"].override(spacing=sizes),
        labels=("background", *(f"class{index}" for index in range(1, CLASSES))),
        patch_size=(64, 64, 32),
        provenance=Provenance(origin="untrained", library_version="0"),
    )
    torch.manual_seed(0)
    return save_bundle(folder, Bundle(build_network(network).eval(), config))


def predict(arguments: argparse.Namespace) -> None:
    """Print time and peak memory of a whole prediction, file to file, in a process that did nothing else."""
    import nibabel as nib

    import modelsgenesis
    from modelsgenesis.configs import PredictionConfig

    with tempfile.TemporaryDirectory() as folder:
        model = write_model(Path(folder) / "model", arguments.spacing, arguments.widths)
        modelsgenesis.load(model)
        import monai.inferers.utils  # noqa: F401 - counted as there before

        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        start = time.perf_counter()
        modelsgenesis.predict(
            model,
            arguments.scan,
            output=Path(folder) / "answer.nii.gz",
            probabilities=arguments.probabilities,
            config=PredictionConfig(overlap=arguments.overlap),
            device="cpu",
        )
        taken = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    voxels = 1
    for side in nib.Nifti1Image.from_filename(arguments.scan).shape:
        voxels *= side
    print(f"{arguments.scan}: {voxels / 1e6:.1f} million voxels, {CLASSES} classes, {taken:.0f} s")
    print(
        f"peak beside the libraries: {peak / 1e6:.0f} MB, {peak / (4 * voxels):.1f} float32 volumes of the scan's size"
    )


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--side", type=int, default=96)
    parser.add_argument("--patch", default="48,48,48")
    parser.add_argument("--widths", default="16,32,64")
    parser.add_argument("--windows", type=int, default=4, help="at once")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="cpu: on a machine with other work")
    parser.add_argument("--scan", help="a CT to predict whole")
    parser.add_argument("--memory", action="store_true", help="only predict the scan and print the peak")
    parser.add_argument("--spacing", help="in mm, of the prepared scan; default: its own")
    parser.add_argument("--overlap", type=float, default=OVERLAP)
    parser.add_argument("--probabilities", action="store_true")
    arguments = parser.parse_args()
    if not arguments.memory:
        measure(arguments)
    if arguments.scan:
        predict(arguments)


if __name__ == "__main__":
    main()
