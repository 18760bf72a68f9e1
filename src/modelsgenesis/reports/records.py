"""What the folder of a run holds; a file that is missing, cut off or damaged costs no more than itself."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelsgenesis.errors import DataError
from modelsgenesis.files import read_json

_LIMIT = 1 << 30  # bytes of run.json, which names every scan

_KEYS = {"arms": "comparison", "metrics": "evaluation", "test": "finetuning"}  # of results.json
_FILES = {  # the first that is there tells the kind where what should say it is missing or damaged
    "comparison.json": "comparison",
    "runs.csv": "comparison",
    "split.json": "finetuning",
    "test.csv": "finetuning",
    "cases.csv": "evaluation",
    "figures/restorations": "pretraining",
    "refused.csv": "pretraining",
}


@dataclass(frozen=True)
class Records:
    """The JSON files of a run.

    Attributes:
        folder: Where they are.
        run: Of `run.json`; empty where it cannot be read.
        bundle: Of `config.json`.
        results: Of `results.json`.
        problems: A line for each file that is there and cannot be read.
    """

    folder: Path
    run: dict[str, Any] = field(default_factory=dict)
    bundle: dict[str, Any] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """What was run: `pretraining`, `finetuning`, `evaluation` or `comparison`; "" where nothing tells."""
        if self.run.get("kind") in ("pretraining", "finetuning"):
            return self.run["kind"]
        if "pretext" in dig(self.run, "config", default={}):  # of 0.1.0, which wrote no kind
            return "pretraining"
        told = [kind for key, kind in _KEYS.items() if key in self.results]
        told += [kind for name, kind in _FILES.items() if (self.folder / name).exists()]
        return told[0] if told else ""

    @property
    def summary(self) -> dict[str, Any]:
        """What was measured of the test cases of a fine-tuning or an evaluation."""
        return dig(self.results, "test", default=dig(self.results, "metrics", default={}))


def read_records(folder: Path) -> Records:
    """Read what is there and can be read."""
    found: dict[str, dict[str, Any]] = {}
    problems: list[str] = []
    for part, name in {"run": "run.json", "bundle": "config.json", "results": "results.json"}.items():
        try:
            content = read_json(folder / name, DataError, _LIMIT) if (folder / name).exists() else {}
            found[part] = content if isinstance(content, dict) else {}
        except DataError as problem:
            problems.append(str(problem).removeprefix(f"{folder}/"))
    return Records(folder, **found, problems=tuple(problems))


def unfinished(records: Records, done: int, command: str) -> list[str]:
    """Return the remark that a run was not finished, and the command that resumes it; nothing where it was."""
    if records.results or records.run.get("finished"):
        return []
    planned = dig(records.run, "config", "steps")
    of = f" of {planned:,}" if isinstance(planned, int) else ""
    told = f"The run was not finished when this page was made, at step {done:,}{of}. If it was cut off, resume it"
    return [f"{told}: {command}"]


def dig(content: Any, *keys: str, default: Any = None) -> Any:
    """Return what is deep within nested mappings, or a default where anything on the way is missing.

    Example:
        >>> dig({"provenance": {"data": {"modality": "ct"}}}, "provenance", "data", "modality")
        'ct'
    """
    for key in keys:
        content = content.get(key) if isinstance(content, Mapping) else None
    return default if content is None else content
