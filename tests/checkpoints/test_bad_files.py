"""Files that are not what they say: a clear error, nothing run, nothing half-written."""

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from modelsgenesis.checkpoints import convert_checkpoint
from modelsgenesis.checkpoints.export import original_names
from modelsgenesis.configs import GenesisUNetConfig
from modelsgenesis.errors import CheckpointError, MissingExtraError, UnsafeCheckpointError
from modelsgenesis.networks import build_network
from reference_files import write_genesis_pt, write_keras_h5, write_openmind_pth

SMALL = GenesisUNetConfig(widths=(4, 8), statistics="batch")
Refused = Callable[..., None]


def small_state_dict() -> dict[str, torch.Tensor]:
    names = original_names(SMALL)
    return {names(here)[0]: tensor.clone() for here, tensor in build_network(SMALL).state_dict().items()}


@pytest.fixture
def refused(tmp_path: Path) -> Refused:
    """Convert a file that must be refused with a message, and find nothing written."""

    def check(file: Path, message: str, kind: type[Exception] = CheckpointError, **arguments: Any) -> None:
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(kind, match=message) as caught:
            convert_checkpoint(file, tmp_path / "bundle", **arguments)
        assert "\n" not in str(caught.value)
        assert sorted(tmp_path.rglob("*")) == before

    return check


class Touches:
    """Pickled, this makes a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return (io.open, (str(self.path), "w"))


@pytest.mark.parametrize("how", ["zip", "format of 2019", "bare pickle"])
def test_a_pickle_that_would_run_code_does_not(tmp_path: Path, refused: Refused, how: str) -> None:
    file, proof = tmp_path / "evil.pt", tmp_path / "proof"
    content = {"state_dict": small_state_dict(), "hook": Touches(proof)}
    if how == "bare pickle":
        file.write_bytes(pickle.dumps(Touches(proof), protocol=2))
    else:
        torch.save(content, file, _use_new_zipfile_serialization=how == "zip")
    message = r"evil\.pt: needs io\.open to be run, expected tensors and plain values alone; nothing was run"
    refused(file, message, UnsafeCheckpointError)
    assert not proof.exists()
    if how != "bare pickle":  # the proof that it is a real one
        torch.load(file, weights_only=False)["hook"].close()
        assert proof.exists()


def test_a_whole_module_is_refused_by_its_class(tmp_path: Path, refused: Refused) -> None:
    file = tmp_path / "module.pt"
    torch.save(torch.nn.Linear(2, 2), file)
    refused(file, r"needs torch\.nn\.modules\.linear\.Linear to be run", UnsafeCheckpointError)


def test_nothing_of_numpy_is_run(tmp_path: Path) -> None:
    """A dtype with a forged state crashed NumPy itself in the past; here it is an empty object."""
    from numpy import dtype

    class Forged:
        def __reduce__(self) -> tuple[Any, ...]:
            return (dtype, ("f8", False, True), (3, "<", None, None, None, -1, 10**9, 0))

    file = tmp_path / "file.pt"
    torch.save({"state_dict": small_state_dict(), "loss": Forged()}, file)
    assert convert_checkpoint(file, tmp_path / "bundle").dropped == {"loss": "no part of the network"}


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_truncated_files(tmp_path: Path, refused: Refused, legacy: bool, share: float) -> None:
    file = tmp_path / "short.pt"
    torch.save({"state_dict": small_state_dict()}, file, _use_new_zipfile_serialization=not legacy)
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    refused(file, r"short\.pt: truncated or damaged.*; download it again")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; download it again"),
        (b"\n<!DOCTYPE html><html><body>503", "is a web page, not a checkpoint; the download failed"),
        (b"<?xml version='1.0'?><Error>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "is a git-lfs pointer"),
        (b"\x00\x01\x02\x03", r"begins with b'\\x00\\x01\\x02\\x03', expected a PyTorch"),
    ],
)
def test_files_of_another_kind(tmp_path: Path, refused: Refused, content: bytes, message: str) -> None:
    file = tmp_path / "file.pt"
    file.write_bytes(content)
    refused(file, message)


def test_a_missing_file(tmp_path: Path, refused: Refused) -> None:
    refused(tmp_path / "none.pt", r"none\.pt: cannot be read: No such file or directory; check the path")


def test_a_zip_bomb_is_not_unpacked(tmp_path: Path, refused: Refused) -> None:
    file = tmp_path / "bomb.pt"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(50_000_000))
        archive.writestr("archive/version", b"3\n")
    assert file.stat().st_size < 100_000
    refused(file, r"bytes that would unpack to 50,000,002, .* may be a zip bomb", UnsafeCheckpointError)


def test_a_tensor_far_larger_than_its_bytes_is_never_built(tmp_path: Path, refused: Refused) -> None:
    weights = small_state_dict()
    name = "down_tr64.ops.0.conv1.weight"
    weights[name] = torch.zeros(1).expand(10**5, 10**5, 3, 3, 3)  # 27 × 10¹⁰ values over one
    file = tmp_path / "file.pt"
    torch.save(weights, file)
    assert file.stat().st_size < 1_000_000
    refused(file, "has shape")


def test_a_zip_of_something_else(tmp_path: Path, refused: Refused) -> None:
    file = tmp_path / "other.pt"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("readme.txt", "no checkpoint")
    refused(file, "truncated or damaged, or no PyTorch checkpoint")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"epoch": 3}, "holds no tensors by name but dict, expected a state dict"),
        (torch.zeros(3), "holds no tensors by name but Tensor"),
        (
            torch.nn.Linear(2, 2).state_dict(),
            r"its tensors \(weight, bias\) are those of no format known here, which are genesis-pytorch, ",
        ),
    ],
)
def test_other_content(tmp_path: Path, refused: Refused, content: Any, message: str) -> None:
    file = tmp_path / "file.pt"
    torch.save(content, file)
    refused(file, message)


@pytest.mark.parametrize(
    ("format", "first"),
    [
        ("genesis-pytorch", r"missing down_tr64\.ops\.0\.conv1\.weight"),
        ("nnunet-v1", r"missing conv_blocks_context\.0\.blocks\.0\.conv\.weight"),
        ("openmind", r"missing encoder\.stem\.convs\.0\.conv\.weight"),
        ("genesis-keras", r"missing depth_0_conv/kernel"),
    ],
)
def test_the_state_dict_of_another_network(
    tmp_path: Path,
    refused: Refused,
    format: Any,  # noqa: A002
    first: str,
) -> None:
    file = tmp_path / "file.pt"
    torch.save(torch.nn.Linear(2, 2).state_dict(), file)
    message = rf"file\.pt: not the weights of a {format} network: {first}.* and \d+ more; is it the published file"
    refused(file, message, format=format)


def change(name: str, value: torch.Tensor | None) -> Callable[[dict[str, torch.Tensor]], None]:
    def apply(weights: dict[str, torch.Tensor]) -> None:
        if value is None:
            del weights[name]
        else:
            weights[name] = value

    return apply


CONVOLUTION = "down_tr64.ops.0.conv1.weight"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            change(CONVOLUTION, torch.zeros(3, 1, 3, 3, 3)),
            r"conv1\.weight has shape \(3, 1, 3, 3, 3\) instead of \(2, 1, 3, 3, 3\)",
        ),
        (change(CONVOLUTION, torch.zeros(())), "not the weights of a genesis-pytorch network"),
        (change("up_tr64.up_conv.bias", torch.zeros(7)), r"has shape \(7,\) instead of \(8,\)"),
        (change("up_tr64.up_conv.bias", None), r"missing up_tr64\.up_conv\.bias"),
        (change("down_tr64.extra", torch.zeros(1)), r"unexpected down_tr64\.extra"),
        (
            change("up_tr64.up_conv.bias", torch.zeros(8, dtype=torch.int64)),
            r"up_conv\.bias holds torch\.int64 instead of torch\.float32",
        ),
        (
            change("up_tr64.up_conv.bias", torch.full((8,), torch.nan)),
            r"NaN or infinite values in decoder\.up",
        ),
        (change("up_tr64.up_conv.bias", torch.full((8,), torch.inf)), "the file is damaged or its training"),
    ],
)
def test_one_tensor_that_is_wrong(tmp_path: Path, refused: Refused, damage: Callable[..., None], message: str) -> None:
    weights = small_state_dict()
    damage(weights)
    file = tmp_path / "file.pt"
    torch.save({"state_dict": weights}, file)
    refused(file, rf"file\.pt: .*{message}")


@pytest.mark.shared
def test_a_published_file_with_one_tensor_less(tmp_path: Path, shared: Path) -> None:
    file = write_genesis_pt(tmp_path / "Genesis_Chest_CT.pt", shared)
    content = torch.load(file, weights_only=True)
    del content["state_dict"]["module.up_tr128.ops.1.bn1.running_var"]
    torch.save(content, file)
    with pytest.raises(CheckpointError, match=r"Genesis_Chest_CT\.pt: .* missing up_tr128\.ops\.1\.bn1\.running_var"):
        convert_checkpoint(file, tmp_path / "bundle")


def test_a_mapping_that_holds_itself_is_looked_at_once(tmp_path: Path) -> None:
    content: dict[str, Any] = {"a": {"state_dict": small_state_dict()}}
    content["a"]["itself"] = content
    for level in range(60):  # two paths through each: 2⁶⁰ to the innermost
        content = {"left": content, "right": content, "level": level}
    file = tmp_path / "file.pt"
    torch.save(content, file)
    assert convert_checkpoint(file, tmp_path / "bundle").network == SMALL


# --- plans --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({}, "says nothing of the architecture's name; it has no key, expected arch_class_name or"),
        (
            {"arch_class_name": "ResidualEncoderUNet", "a": 1},
            "says nothing of normalisation; it has arch_class_name, a, expected normalization_schemes or",
        ),
        (
            {"arch_class_name": "ResidualEncoderUNet", "normalization_schemes": ["Other"]},
            "normalisation is 'Other', expected 'ZScoreNormalization'; pass the input contract",
        ),
        (
            {"arch_class_name": "PlainConvUNet"},
            r"names the architecture 'PlainConvUNet', but the tensors make up a residual_unet with widths",
        ),
        ({"arch_class_name": "ResEncL"}, "names the architecture 'ResEncL', but the tensors make up"),
        ({"arch_class_name": "Primus"}, "architecture 'Primus' is unknown; known are plainconvunet, resencl"),
        (
            {
                "arch_class_name": "ResidualEncoderUNet",
                "normalization_schemes": ["ZScoreNormalization"],
                "spacing": [1.0, 1.0, 0.0],
            },
            r"spacing is \[1.0, 1.0, 0.0\], expected positive numbers",
        ),
        ([], "holds list, expected a JSON object"),
    ],
)
def test_plans_that_do_not_fit(tmp_path: Path, refused: Refused, plan: Any, message: str) -> None:
    file = write_openmind_pth(tmp_path / "checkpoint_final.pth")
    path = tmp_path / "adaptation_plan.json"
    path.write_text(json.dumps(plan))
    refused(file, rf"adaptation_plan\.json: .*{message}", extra_files={path.name: path})


def test_a_plan_that_is_no_json(tmp_path: Path, refused: Refused) -> None:
    file = write_openmind_pth(tmp_path / "checkpoint_final.pth")
    path = tmp_path / "adaptation_plan.json"
    path.write_text("<html>")
    refused(file, r"adaptation_plan\.json: cannot be read as JSON", extra_files={path.name: path})


def test_a_checkpoint_without_any_plan(tmp_path: Path, refused: Refused) -> None:
    file = write_openmind_pth(tmp_path / "checkpoint_final.pth")
    content = torch.load(file, weights_only=True)
    torch.save({"network_weights": content["network_weights"]}, file)
    refused(file, r"no nnssl_adaptation_plan in the file and no adaptation_plan\.json beside it; download both")


# --- Keras --------------------------------------------------------------------------------------------------


def test_keras_without_h5py(tmp_path: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    file = tmp_path / "file.h5"
    file.write_bytes(b"\x89HDF\r\n\x1a\n")
    monkeypatch.setitem(sys.modules, "h5py", None)
    refused(file, r"reading a Keras checkpoint needs .* pip install 'modelsgenesis\[keras\]'", MissingExtraError)


@pytest.mark.shared
def test_a_truncated_keras_file(tmp_path: Path, shared: Path) -> None:
    file = write_keras_h5(tmp_path / "short.h5", shared)
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match=r"short\.h5: truncated or damaged"):
        convert_checkpoint(file, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_a_keras_file_larger_inside_than_outside(tmp_path: Path, refused: Refused) -> None:
    import h5py

    file = tmp_path / "bomb.h5"
    with h5py.File(file, "w") as content:
        shape = (3, 3, 3, 1000, 100_000)
        content.create_dataset("depth_0_conv/depth_0_conv/kernel:0", shape, "f4", compression="gzip", chunks=True)
    refused(
        file,
        r"bytes with larger or outside data \(depth_0_conv/depth_0_conv/kernel:0\)",
        UnsafeCheckpointError,
    )


def test_a_keras_file_reads_no_other_file(tmp_path: Path, refused: Refused) -> None:
    import h5py

    secret = tmp_path / "secret"
    secret.write_bytes(bytes(400))
    file = tmp_path / "outside.h5"
    with h5py.File(file, "w") as content:
        content.create_dataset("depth_0_conv/a/kernel:0", (100,), "f4", external=[(str(secret), 0, 400)])
    refused(file, "larger or outside data", UnsafeCheckpointError)
    with h5py.File(file, "w") as content:
        content["depth_0_conv/kernel:0"] = h5py.ExternalLink(str(secret), "/x")
    refused(file, "holds no tensors by name")
