"""Bundles that are on this machine already: checked, and copied out of the cache."""

import shutil
import uuid
from pathlib import Path

from modelsgenesis.checkpoints import load_bundle
from modelsgenesis.errors import DigestError, HubError, UnknownModelError
from modelsgenesis.files import reason_of, sha256_of
from modelsgenesis.hub.cache import open_cache
from modelsgenesis.hub.download import BUNDLE_FILES, fetch_bundle, find_folder, find_target


def cached_folder(name_or_folder: str | Path, *, revision: str | None = None, cache: str | Path | None = None) -> Path:
    """Return the folder of a bundle that is here; no connection is opened.

    What was downloaded is not checked again, what lies beside its card is compared with the card's digest.

    Raises:
        UnknownModelError: It is not on this machine.
    """
    return _find(name_or_folder, revision, cache)[0]


def verify(
    name_or_folder: str | Path, *, revision: str | None = None, cache: str | Path | None = None
) -> dict[str, str]:
    """Check a bundle that is here: digests as recorded when it was downloaded, and a strict load.

    No connection is opened. What lies beside its card is compared with the digest in the card.

    Returns:
        SHA-256 by file.

    Raises:
        UnknownModelError: It is not on this machine.
        DigestError: A file was altered since it was downloaded.
        CheckpointError: It does not load.
    """
    folder, recorded = _find(name_or_folder, revision, cache)
    for file, digest in recorded.items():
        if not (folder / file).is_file() or sha256_of(folder / file) != digest:
            again = f"modelsgenesis download {name_or_folder}"
            raise DigestError(f"{folder / file}: is not the file that was downloaded; {again}")
    load_bundle(folder)
    return {name: sha256_of(folder / name) for name in BUNDLE_FILES if (folder / name).is_file()}


def _find(name: str | Path, revision: str | None, cache: str | Path | None) -> tuple[Path, dict[str, str]]:
    """Return the folder of a bundle that is here, and the digests of its files when it was downloaded."""
    folder = find_folder(name, revision)
    if folder is not None:
        return folder, {}
    target = find_target(str(name), revision)
    if target.card and target.card.is_local:
        return fetch_bundle(name, cache=cache), {}
    here = open_cache(cache)
    record = here.read(target.key)
    if record is None:
        raise UnknownModelError(f"{name}: not on this machine; modelsgenesis download {name}")
    return here.bundle(record), record.files


def copy_bundle(folder: Path, output: Path) -> Path:
    """Copy a bundle to a folder of the user's: whole, or not at all.

    Raises:
        HubError: The folder exists with something in it, or cannot be written.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise HubError(f"{output}: exists already; name a new folder")
    temporary = output.with_name(f".{output.name[:40]}.{uuid.uuid4().hex[:8]}")
    try:
        shutil.copytree(folder, temporary, ignore=lambda _, names: set(names) - set(BUNDLE_FILES))
        temporary.replace(output)
    except OSError as error:
        raise HubError(f"{output}: cannot be written: {reason_of(error)}; choose another folder") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return output
