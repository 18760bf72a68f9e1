"""A folder that one process holds at a time."""

import fcntl
import os
from pathlib import Path

from modelsgenesis.errors import TrainingError


class FolderLock:
    """Holds a folder until it is closed or the process ends, however it ends.

    Args:
        folder: Made where it is missing.
        name: Of the lock's file in the folder.
        work: What a process does there, for the message.

    Raises:
        TrainingError: Another process holds it, or it cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     FolderLock(Path(folder), ".lock", "trains").close()
    """

    def __init__(self, folder: Path, name: str, work: str) -> None:
        self._descriptor: int | None = None
        path = folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.close()
            raise TrainingError(f"{folder}: another process {work} in this folder; wait or choose another") from error
        except OSError as error:
            self.close()
            raise TrainingError(f"{folder}: cannot be written: {error.strerror}; choose another folder") from error

    def close(self) -> None:
        """Let go of the folder; a second time it does nothing."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
