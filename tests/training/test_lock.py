"""A folder that one process holds."""

import subprocess
import sys

import pytest

from modelsgenesis.errors import TrainingError
from modelsgenesis.training.lock import FolderLock


def test_a_folder_is_held_by_one_until_it_is_closed(tmp_path):
    folder = tmp_path / "new" / "run"
    first = FolderLock(folder, "checkpoints/.lock", "trains")
    with pytest.raises(TrainingError, match=r"run: another process trains in this folder; wait or choose another$"):
        FolderLock(folder, "checkpoints/.lock", "trains")
    FolderLock(folder, ".lock", "compares").close()
    first.close()
    first.close()
    FolderLock(folder, "checkpoints/.lock", "trains").close()


def test_a_process_that_is_killed_lets_go(tmp_path):
    program = (
        "import signal, sys; from pathlib import Path; from modelsgenesis.training.lock import FolderLock; "
        "lock = FolderLock(Path(sys.argv[1]), '.lock', 'trains'); print('held', flush=True); "
        "signal.pause()"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(TrainingError, match="another process trains"):
            FolderLock(tmp_path, ".lock", "trains")
        holder.kill()
        holder.wait()
        FolderLock(tmp_path, ".lock", "trains").close()


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(TrainingError, match=r"file/run: cannot be written: .*; choose another folder"):
        FolderLock(tmp_path / "file" / "run", ".lock", "trains")
