"""Bundles that are on this machine already: checked, and copied out of the cache."""

import shutil
import tempfile
from pathlib import Path

from modelsgenesis.checkpoints import load_bundle
from modelsgenesis.errors import DigestError, HubError, UnknownModelError
from modelsgenesis.hub.cache import open_cache, sha256_of
from modelsgenesis.hub.download import BUNDLE_FILES, find_folder, find_target


def cached_folder(name_or_folder: str | Path, *, revision: str | None = None, cache: str | Path | None = None) -> Path:
    """Return the folder of a bundle that is here; no connection is opened and nothing is checked.

    Raises:
        UnknownModelError: It is not on this machine.
    """
    folder = find_folder(name_or_folder, revision)
    if folder is not None:
        return folder
    here = open_cache(cache)
    record = here.read(find_target(str(name_or_folder), revision).key)
    if record is None:
        raise UnknownModelError(f"{name_or_folder}: not on this machine; modelsgenesis download {name_or_folder}")
    return here.bundle(record)


def verify(
    name_or_folder: str | Path, *, revision: str | None = None, cache: str | Path | None = None
) -> dict[str, str]:
    """Check a bundle that is here: digests as recorded when it was downloaded, and a strict load.

    No connection is opened.

    Returns:
        SHA-256 by file.

    Raises:
        UnknownModelError: It is not on this machine.
        DigestError: A file was altered since it was downloaded.
        CheckpointError: It does not load.
    """
    folder = find_folder(name_or_folder, revision)
    if folder is None:
        target, here = find_target(str(name_or_folder), revision), open_cache(cache)
        record = here.read(target.key)
        again = f"modelsgenesis download {name_or_folder}"
        if record is None:
            raise UnknownModelError(f"{name_or_folder}: not on this machine; {again}")
        folder = here.bundle(record)
        for name, digest in record.files.items():
            if not (folder / name).is_file() or sha256_of(folder / name) != digest:
                raise DigestError(f"{folder / name}: is not the file that was downloaded; {again}")
    load_bundle(folder)
    return {name: sha256_of(folder / name) for name in BUNDLE_FILES if (folder / name).is_file()}


def copy_bundle(folder: Path, output: Path) -> Path:
    """Copy a bundle to a folder of the user's: whole, or not at all.

    Raises:
        HubError: The folder exists with something in it, or cannot be written.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise HubError(f"{output}: exists already; name a new folder")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=output.parent, prefix=f".{output.name}."))
        try:
            for name in BUNDLE_FILES:
                if (folder / name).is_file():
                    shutil.copyfile(folder / name, temporary / name)
            temporary.chmod(0o755)
            temporary.replace(output)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise HubError(f"{output}: cannot be written: {error.strerror}; choose another folder") from error
    return output
