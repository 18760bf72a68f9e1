"""What is not a regular file is refused at once, whatever its name promises."""

import os
import socket
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from modelsgenesis.data import read_volume, scan_sources
from modelsgenesis.errors import ScanError


@pytest.mark.parametrize("suffix", [".nii.gz", ".hdr", ".mgz", ".nrrd", ".mhd", ".png", ".tif"])
@pytest.mark.parametrize("kind", ["fifo", "device", "folder", "loop", "dangling", "socket"])
def test_what_is_not_a_regular_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, kind: str) -> None:
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    path = Path(f"x{suffix}")
    if kind in ("fifo", "folder"):
        {"fifo": os.mkfifo, "folder": os.mkdir}[kind](path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    else:
        path.symlink_to({"device": "/dev/zero", "loop": path, "dangling": "nothing"}[kind])
    with pytest.raises(ScanError, match=r"x\..*: (is not a regular|cannot be read|there is no such|holds no DICOM)"):
        read_volume(path)
    scans, skipped = scan_sources(".")
    assert scans == []
    assert len(skipped) == 1 or kind == "folder"


def test_voxels_that_are_not_a_regular_file(tmp_path: Path) -> None:
    pytest.importorskip("SimpleITK")
    (tmp_path / "x.mhd").write_text("NDims = 2\nDimSize = 2 2\nElementType = MET_UCHAR\nElementDataFile = x.img\n")
    nib.save(nib.Nifti1Pair(np.zeros((3, 3, 3), np.int16), np.eye(4)), tmp_path / "x.hdr")
    (tmp_path / "x.img").unlink()
    os.mkfifo(tmp_path / "x.img")
    for name in ("x.mhd", "x.hdr"):
        with pytest.raises(ScanError, match=r"its voxels are missing"):
            read_volume(tmp_path / name)


@pytest.mark.parametrize("name", ["x" * 300 + ".nii", "x\0.nii", "x.unknown", "nothing.nii.gz"])
def test_names_of_no_scan(tmp_path: Path, name: str) -> None:
    (tmp_path / "x.unknown").write_bytes(b"text")
    with pytest.raises(ScanError, match=r"no such file|cannot be read|of no known format; expected NIfTI"):
        read_volume(tmp_path / name)
