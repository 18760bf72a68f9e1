"""How long predictions take beside a direct call of MONAI's, with the same network, windows and overlap.

    python benchmarks/inference.py [--device cuda] [--quick]
    python benchmarks/inference.py --scan cxr.nii.gz --spacing 1.5,1.5,2.5 --memory

All ways take turns in one process; the median of the ratios is printed, above 1 where this package is faster. MONAI is
called as its documentation does: the network as it was built, four windows at once, Gaussian weights. Beside it stands
the same call with this package's memory layout, so that only what the sliding window itself saves is left; and four
windows at once instead of as many as the device is fastest with. Then a folder of scans, file to file, against the same
without reading and writing while the network computes; and on CUDA a CT of 512×512×300 with the network of 2019.

With a scan, and `--memory`, the peak of a whole prediction is printed, in volumes of the scan's size in float32.
"""

import argparse
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

OVERLAP, CLASSES = 0.5, 3


def seconds(work: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """Time one run, to the end of what it made a GPU do."""
    import torch

    start = clock()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return clock() - start


def images(side: int, patch: tuple[int, ...]) -> dict[str, Any]:
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
    hardware = choose_hardware(arguments.device, arguments.precision)
    patch = tuple(int(side) for side in arguments.patch.split(","))
    widths = tuple(int(width) for width in arguments.widths.split(","))
    shape = GenesisUNetConfig(widths=widths, norm="instance", out_channels=CLASSES, output="linear")
    torch.manual_seed(0)
    plain = build_network(shape).eval().to(hardware.device)
    placed = build_network(shape).eval()
    placed.load_state_dict(plain.state_dict())
    hardware.place(placed)

    def monai(network: Callable[[object], object], image: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            batch: Any = image[None].to(hardware.device)
            return sliding_window_inference(batch, patch, 4, network, overlap=OVERLAP, mode="gaussian")  # type: ignore[arg-type, return-value]

    def laid_out(windows: object) -> object:
        with hardware.autocast():
            return placed(hardware.place(windows)).float()  # type: ignore[arg-type]

    def ours(image: torch.Tensor, at_once: Any = "auto") -> torch.Tensor:
        config = PredictionConfig(overlap=OVERLAP, windows_at_once=at_once)
        return sliding_window(placed, image, patch_size=patch, config=config, hardware=hardware)

    ways: dict[str, Callable[[Any], torch.Tensor]] = {
        "MONAI": lambda one: monai(plain, one),
        "MONAI with the layout of here": lambda one: monai(laid_out, one),
        "4 windows at once": lambda one: ours(one, 4),
    }
    for name, image in images(arguments.side, patch).items():
        difference = (ours(image) - monai(laid_out, image)[0]).abs().max()
        ratios: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(arguments.runs):
            mine = seconds(lambda image=image: ours(image), clock)
            for way, work in ways.items():
                ratios[way].append(seconds(lambda work=work, image=image: work(image), clock) / mine)
        shown = ", ".join(f"{statistics.median(values):.2f} as {way}" for way, values in ratios.items())
        print(f"{name}, {hardware.precision}: times as fast: {shown}; difference {float(difference):.0e}", flush=True)


def overlapping(arguments: argparse.Namespace) -> None:
    """Print what reading and writing cost while the network computes, against doing one after the other."""
    import nibabel as nib
    import numpy as np

    import modelsgenesis
    from modelsgenesis.configs import PredictionConfig
    from modelsgenesis.inference import stages

    class InTurn(ThreadPoolExecutor):
        def submit(self, fn: Any, /, *args: Any, **options: Any) -> Any:  # type: ignore[override]
            done = super().submit(fn, *args, **options)
            wait([done])
            return done

    side, count = (64, 4) if arguments.quick else (192, 6)
    with tempfile.TemporaryDirectory() as folder:
        model = write_model(Path(folder) / "model", "2,2,2", arguments.widths)
        (Path(folder) / "scans").mkdir()
        for index in range(count):
            voxels = np.random.default_rng(index).normal(0, 300, (side, side, side // 2)).astype(np.int16)
            image = nib.Nifti1Image(voxels, np.diag([1.5, 1.5, 2, 1]))
            nib.save(image, Path(folder) / "scans" / f"{index}.nii.gz")

        def predict_all() -> None:
            config, output = PredictionConfig(overlap=0.25), Path(folder) / "predicted"
            modelsgenesis.predict_all(
                model, Path(folder) / "scans", output=output, config=config, device=arguments.device, strict=True
            )

        def in_turn() -> None:
            stages.ThreadPoolExecutor = InTurn  # type: ignore[misc]
            predict_all()
            stages.ThreadPoolExecutor = ThreadPoolExecutor  # type: ignore[misc]

        predict_all()  # warms up
        both = [(seconds(in_turn), seconds(predict_all)) for _ in range(arguments.runs)]
    gain, took = statistics.median(slow / fast for slow, fast in both), statistics.median(fast for _, fast in both)
    each = f"{count} scans of {side}×{side}×{side // 2}, file to file: {took / count:.2f} s each"
    print(f"{each}, {gain:.2f} times as fast as with reading and writing before and after the network", flush=True)


def large_scan(arguments: argparse.Namespace) -> None:
    """Print how long a CT of 512×512×300 takes with the network of 2019, in each number format, and in what windows."""
    import torch

    from modelsgenesis.configs import GENESIS_UNET_2019, PredictionConfig
    from modelsgenesis.hardware import choose_hardware
    from modelsgenesis.inference.sliding_window import sliding_window, windows_that_fit
    from modelsgenesis.networks import build_network

    shape = GENESIS_UNET_2019.override(out_channels=CLASSES, output="linear", statistics="running")
    network, image = build_network(shape).eval(), torch.rand(1, 512, 512, 300)
    for precision in ("bfloat16", "float32"):
        hardware = choose_hardware(arguments.device, precision)
        hardware.place(network)

        def predict(image: torch.Tensor = image, hardware: Any = hardware) -> torch.Tensor:
            return sliding_window(
                network, image, patch_size=(64, 64, 32), config=PredictionConfig(), hardware=hardware
            ).cpu()

        predict(image[:, :128, :128, :64])  # warms up
        fit = windows_that_fit(network, (64, 64, 32), hardware)
        print(f"512×512×300, network of 2019, {precision}: {seconds(predict):.1f} s, {fit} windows at once", flush=True)


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
            device=arguments.device,
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
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--quick", action="store_true", help="a minute on one core")
    parser.add_argument("--runs", type=int)
    parser.add_argument("--side", type=int)
    parser.add_argument("--patch")
    parser.add_argument("--widths")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="cpu: on a machine with other work")
    parser.add_argument("--scan", help="a CT to predict whole")
    parser.add_argument("--memory", action="store_true", help="only predict the scan and print the peak")
    parser.add_argument("--spacing", help="in mm, of the prepared scan; default: its own")
    parser.add_argument("--overlap", type=float, default=OVERLAP)
    parser.add_argument("--probabilities", action="store_true")
    arguments = parser.parse_args()
    arguments.runs = arguments.runs or (3 if arguments.quick else 5)
    arguments.side = arguments.side or (48 if arguments.quick else 96)
    arguments.patch = arguments.patch or ("32,32,32" if arguments.quick else "48,48,48")
    arguments.widths = arguments.widths or ("8,16" if arguments.quick else "16,32,64")
    if not arguments.memory:
        measure(arguments)
        overlapping(arguments)
        if arguments.device.startswith("cuda"):
            large_scan(arguments)
    if arguments.scan:
        predict(arguments)


if __name__ == "__main__":
    main()
