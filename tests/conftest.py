"""Fixtures that many tests share."""

import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import settings

# A busy machine is not a failure, and a check has one verdict: fresh seeds are for `pytest -m slow`.
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")
torch.set_num_threads(1)  # the networks of the tests are too small for more

pytest_plugins = ["trained_models", "runs_to_push"]
SHARED = Path(__file__).parents[2] / "shared"


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the options
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Share the default run between two processes of one thread each, unless `-n` or `-p no:xdist` says otherwise.

    Each takes file after file, so that what a module trains is trained once. A few files end sooner in one process:
    two import torch twice. What has a marker may need the machine for itself.
    """
    default = config.args_source is pytest.Config.ArgsSource.TESTPATHS and "not gpu" in config.option.markexpr
    alone = hasattr(config, "workerinput") or config.option.usepdb
    if default and not alone and getattr(config.option, "numprocesses", 0) is None:
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        config.option.numprocesses, config.option.dist, config.option.loadscopereorder = 2, "loadfile", False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs the folder of real data or a CUDA device where there is none."""
    absent = {}
    if not SHARED.is_dir():
        absent["shared"] = "needs the folder of real data and reference outputs: ../shared"
    if not torch.cuda.is_available():
        absent["gpu"] = "needs a CUDA device"
    for item in items:
        for mark, reason in absent.items():
            if item.get_closest_marker(mark):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and reference outputs; mark the test `shared`."""
    return SHARED


@pytest.fixture(scope="session")
def shared_data(shared: Path) -> Path:
    """The real scans; mark the test `shared`."""
    return shared / "data"


def make_ct(seed: int, shape: tuple[int, int, int] = (28, 24, 20)) -> np.ndarray:
    """A body of soft tissue with two bright organs, in HU, noise included."""
    random = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, side) for side in shape), indexing="ij"))
    hounsfield = np.full(shape, -1000.0)
    hounsfield[(grid**2).sum(axis=0) < 0.9] = 40
    for value, centre in ((700, (0.3, 0.2, 0.1)), (-300, (-0.3, -0.2, 0.0))):
        shift = random.uniform(-0.1, 0.1, 3)
        distance = sum((axis - place - move) ** 2 for axis, place, move in zip(grid, centre, shift, strict=True))
        hounsfield[distance < 0.09] = value
    return (hounsfield + random.normal(0, 10, shape)).astype(np.int16)


@pytest.fixture(scope="session")
def ct_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four small CT volumes as NIfTI."""
    folder = tmp_path_factory.mktemp("ct")
    affine = np.diag([2.0, 2.0, 2.5, 1.0])
    for index in range(4):
        nib.save(nib.Nifti1Image(make_ct(index), affine), folder / f"patient{index}.nii.gz")
    return folder


@pytest.fixture(scope="session")
def decathlon(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six small CT volumes with two labelled organs, in the Decathlon's layout."""
    folder = tmp_path_factory.mktemp("Task99_Balls")
    affine = np.diag([-2.0, -2.0, 2.5, 1.0])  # left, posterior, superior
    training = []
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir()
    for index in range(6):
        image = make_ct(index)
        label = np.where(image > 350, 1, np.where((image > -450) & (image < -150), 2, 0)).astype(np.uint8)
        name = f"ball_{index:03d}.nii.gz"
        nib.save(nib.Nifti1Image(image, affine), folder / "imagesTr" / name)
        nib.save(nib.Nifti1Image(label, affine), folder / "labelsTr" / name)
        training.append({"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"})
    description = {
        "name": "Balls",
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "bright", "2": "dark"},
        "training": training,
    }
    (folder / "dataset.json").write_text(json.dumps(description))
    return folder


@pytest.fixture(params=["float32", "bfloat16"])
def number_format(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Runs a test twice: as on a machine that does not multiply bfloat16, and as on one that does.

    Torch emulates bfloat16 where there is none, so that both run on any CPU.
    """
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"amx_bf16": request.param == "bfloat16"}, raising=False)
    return request.param


@pytest.fixture(autouse=True)
def _private_caches(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the tests out of the user's caches."""
    monkeypatch.setenv("MODELSGENESIS_CACHE", str(tmp_path_factory.getbasetemp() / "modelsgenesis-cache"))
