"""Files of others, read within limits; files of our own, written so that a crash leaves the old one or the new one.

Everything foreign (weights, plans, cards, configurations, scans, answers of a server) passes through here on its way
in: `open_regular` before anything is parsed, `parsing` round the parser, and `check_plain` over nested
values that a parser made, whose aliases could multiply.
"""

import csv
import hashlib
import io
import json
import os
import re
import shutil
import stat
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from modelsgenesis.errors import CheckpointError, GenesisError, printable, require

TEXT_LIMIT = 16 << 20
"""Bytes that a configuration, a card, a plan or a record may have."""

_NODES, _DEPTH, _BITS = 1_000_000, 64, 1000
_FRONT_LIMIT = 1 << 16  # letters of a card's header, which has a tenth; no YAML of that size takes long


def open_regular(path: Path, error: type[GenesisError], limit: int | None = None) -> BinaryIO:
    """Open a file for reading; a FIFO or a device, which could block for ever, is refused.

    Args:
        path: The file.
        error: What to raise.
        limit: Bytes that it may have at most.

    Raises:
        GenesisError: Of the class `error`: it is not there, no regular file, cannot be opened, or is too large.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a FIFO would block without
        file = os.fdopen(descriptor, "rb") if stat.S_ISREG(os.fstat(descriptor).st_mode) else None
    except FileNotFoundError as problem:
        raise error(f"{path}: there is no such file; check the path") from problem
    except (OSError, ValueError) as problem:  # ValueError: a NUL in the name
        raise error(f"{path}: cannot be read: {reason_of(problem)}; check the path and its rights") from problem
    if file is None:
        os.close(descriptor)
        raise error(f"{path}: is not a regular file; name a file, or copy its content to one")
    size = os.fstat(descriptor).st_size
    if limit is not None and size > limit:
        file.close()
        raise error(f"{path}: has {size:,} bytes, expected at most {limit:,}; it was not read")
    return file


def read_text(path: Path, error: type[GenesisError], limit: int = TEXT_LIMIT) -> str:
    """Return the content of a UTF-8 file, with or without a byte order mark; errors as of `open_regular`."""
    with open_regular(path, error, limit) as file, parsing(path, error):
        return file.read(limit).decode("utf-8-sig")


def read_json(path: Path, error: type[GenesisError], limit: int = TEXT_LIMIT, *, nan_is_null: bool = False) -> Any:
    """Return the value of a JSON file, with finite numbers and text that can be written.

    Args:
        path: The file.
        error: What to raise.
        limit: Bytes that it may have at most.
        nan_is_null: Whether `NaN` and `Infinity`, which Python writes, are read as null; else they are refused.

    Raises:
        GenesisError: Of the class `error`: it is not JSON, nested too deeply, or holds such a number or text; and as
            of `open_regular`.
    """
    text = read_text(path, error, limit)
    with parsing(path, error, what="as JSON"):
        value = json.loads(text, parse_constant=(lambda _: None) if nan_is_null else None)
        check_plain(value, path, error)
        json.dumps(value, allow_nan=False)  # refuses a number that is not finite, such as 1e999
    return value


def check_plain(value: Any, source: object, error: type[GenesisError]) -> None:
    """Refuse nested lists and mappings that are too deep or too many, each alias counted as often as it occurs.

    A few hundred bytes of a pickle or of YAML can name one list so often that writing it out fills the memory.

    Raises:
        GenesisError: Of the class `error`: there are more than a million values, more than 64 levels, a number of more
            than 1,000 bits, which Python would not write, or text that cannot be encoded.
    """
    waiting, nodes = [(value, 0)], 0
    while waiting:
        item, depth = waiting.pop()
        nodes += 1
        if nodes > _NODES or depth > _DEPTH:
            raise error(f"{source}: holds more than {_NODES:,} values or {_DEPTH} levels; it was not read")
        if isinstance(item, Mapping):
            waiting += [(part, depth + 1) for pair in item.items() for part in pair]
        elif isinstance(item, (list, tuple, set, frozenset)):
            nodes += len(item) if len(item) > _NODES else 0  # before a list of that length is copied
            waiting += [(part, depth + 1) for part in item] if nodes <= _NODES else [(None, _DEPTH + 1)]
        elif isinstance(item, int) and item.bit_length() > _BITS:
            raise error(f"{source}: holds a number of {item.bit_length():,} bits; it was not read")
        elif isinstance(item, str) and not item.isascii():
            nodes += len(item) >> 8  # a long text could be named a million times
            with parsing(source, error, remedy="write it again as UTF-8"):
                item.encode()  # fails for half of a surrogate pair


def split_front_matter(text: str, source: object, error: type[GenesisError]) -> tuple[dict[str, Any], str]:
    r"""Take Markdown apart: its YAML front matter, empty when there is none, and what follows it.

    Args:
        text: Such as a model card; a byte order mark and the line ends of Windows are taken off.
        source: What a message calls it.
        error: What to raise.

    Raises:
        GenesisError: Of the class `error`: the front matter is not a YAML mapping, is too long or too deep, or has
            aliases, which could multiply.

    Example:
        >>> split_front_matter("---\nlicense: mit\n---\n\nProse", "README.md", GenesisError)
        ({'license': 'mit'}, 'Prose')
    """
    import yaml

    text = text.replace("\r\n", "\n").removeprefix("\ufeff")
    lines = text.split("\n")
    rules = (number for number, line in enumerate(lines) if line.rstrip(" \t") == "---")
    if next(rules, None) != 0 or not (last := next(rules, 0)):
        return {}, text
    front, depth = "\n".join(lines[1:last]), 0
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the registry is read on every start
    with parsing(source, error, what="as front matter", remedy="fix it by hand"):
        if len(front) > _FRONT_LIMIT:
            raise error(f"{source}: its front matter has {len(front):,} letters, expected at most {_FRONT_LIMIT:,}")
        try:
            for event in yaml.parse(front, Loader=loader):  # before anything is built
                depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
                if depth > _DEPTH or isinstance(event, yaml.AliasEvent):
                    raise error(f"{source}: its front matter has an alias, or more than {_DEPTH} levels; write it flat")
            values = yaml.load(front, Loader=loader) or {}  # noqa: S506 - either loader is a safe one
        except yaml.YAMLError as problem:
            why = " ".join(str(problem).split())[:300]
            raise error(f"{source}: the front matter is not YAML: {why}; fix it by hand") from problem
    if not isinstance(values, dict):
        raise error(f"{source}: the front matter is a {type(values).__name__}, expected a YAML mapping")
    check_plain(values, source, error)
    return values, "\n".join(lines[last + 1 :]).lstrip("\n")


@contextmanager
def parsing(
    source: object, error: type[GenesisError], *, what: str = "", remedy: str = "copy, download or export it again"
) -> Iterator[None]:
    """Turn whatever a parser raises on foreign content into one error that names the source.

    Parsers answer damaged or hostile bytes with exceptions of any type, and none of them may stop a job over many
    files or reach a user. Errors of this package pass.

    Args:
        source: The file, or what else a message should call it.
        error: What to raise.
        what: As what it was read, such as `"as JSON"`.
        remedy: What to do about it.

    Raises:
        GenesisError: Of the class `error`.
    """
    try:
        yield
    except GenesisError:
        raise
    except FileNotFoundError as problem:
        raise error(f"{source}: there is no such file; check the path") from problem
    except MemoryError as problem:
        raise error(f"{source}: does not fit into memory") from problem
    except Exception as problem:  # any at all, see above
        how = f" {what}" if what else ""
        raise error(f"{source}: cannot be read{how}: {reason_of(problem)}; {remedy}") from problem


def reason_of(problem: BaseException) -> str:
    """Return the cause that an exception names, in one short line."""
    text = (problem.strerror if isinstance(problem, OSError) else None) or str(problem)
    lines = [line.strip() for line in text[:10_000].splitlines() if line.strip()]
    return printable(lines[-1])[:200] if lines else type(problem).__name__


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def replacing(
    path: Path, error: type[GenesisError] = CheckpointError, *, suffix: str = "", folder: bool = False
) -> Iterator[Path]:
    """Give a temporary file or folder beside `path` that becomes it when the block ends well: whole, or not at all.

    Args:
        path: The file; or the folder, of which nothing, or an empty one, may be there.
        error: What to raise.
        suffix: The ending of the temporary file, for a library that chooses the format by it.
        folder: Make a folder.

    Raises:
        GenesisError: Of the class `error`: the disk is full, the folder cannot be written, or holds something; what
            was there is intact.
    """
    try:
        temporary = path.with_name(f".{path.name[:40]}.{uuid.uuid4().hex[:8]}{suffix}")
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir() if folder else temporary.touch()
    except (OSError, ValueError) as problem:
        raise error(f"{path}: cannot be written: {reason_of(problem)}; choose another folder") from problem
    try:
        yield temporary
        descriptors = [os.open(place, os.O_RDONLY) for place in (temporary, path.parent)]
        try:
            os.fsync(descriptors[0])
            temporary.replace(path)
            os.fsync(descriptors[1])  # which makes the renaming last through a loss of power
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
    except OSError as problem:
        raise error(f"{path}: cannot be written: {reason_of(problem)}; the previous content is intact") from problem
    finally:
        shutil.rmtree(temporary, ignore_errors=True) if folder else temporary.unlink(missing_ok=True)


def require_new(path: Path, *, folder: bool = False) -> None:
    """Refuse the path of a file that exists, or of a folder that holds something.

    Raises:
        CheckpointError: It does.
    """
    empty = folder and path.is_dir() and not any(path.iterdir())
    require(empty or not path.exists(), CheckpointError, f"{path}: exists already; choose a new name")


def write_atomically(path: Path, content: bytes | str, error: type[GenesisError] = CheckpointError) -> Path:
    """Write a file so that a crash leaves either the old one or the new one; errors as of `replacing`."""
    with replacing(path, error) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def write_json(path: Path, content: Any, error: type[GenesisError] = CheckpointError) -> Path:
    """Write a JSON document atomically; errors as of `replacing`."""
    return write_atomically(path, json.dumps(content, indent=2, allow_nan=False) + "\n", error)


_FORMULA = re.compile("'*[=+\\-@\t\r\n＝＋－＠]")  # those of full width count, too
_APOSTROPHE = re.compile(f"^'(?={_FORMULA.pattern})")


def write_csv(
    path: Path, rows: Sequence[Mapping[str, Any]], error: type[GenesisError], columns: Sequence[str] = ()
) -> Path:
    """Write a table atomically; `read_csv` reads it back to the letter.

    Text that a spreadsheet would run as a formula gets an apostrophe before it, which spreadsheets hide.

    Args:
        path: The file.
        rows: By column; None and NaN, what is undefined, become empty cells, as do columns that a row lacks.
        error: As of `replacing`.
        columns: What comes first in the header; the others follow in the order of the rows.
    """
    names = list(dict.fromkeys([*columns, *(name for row in rows for name in row)]))
    text = io.StringIO(newline="")
    writer = csv.writer(text)  # its line ends, CR LF, have it quote both within a cell
    writer.writerows([map(_cell, names), *([_cell(row.get(name)) for name in names] for row in rows)])
    return write_atomically(path, text.getvalue(), error)


def _cell(value: Any) -> Any:
    if isinstance(value, str):
        return f"'{value}" if _FORMULA.match(value) else value
    return "" if value is None or value != value else value


def read_csv(path: Path, error: type[GenesisError]) -> list[dict[str, str]]:
    """Return the rows of a table with a header, by column; errors as of `read_text`, and of damage."""
    text = read_text(path, error)
    with parsing(path, error, what="as CSV"):
        rows = csv.reader(io.StringIO(text, newline=""), strict=True)
        names, *table = [[_APOSTROPHE.sub("", cell) for cell in row] for row in rows if row]
        return [dict(zip(names, row, strict=True)) for row in table]
