"""The prepared cases of a comparison: read once, written once, and the test patients only when they are needed."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from modelsgenesis.comparison.payload import write_payload
from modelsgenesis.comparison.trials import Arm
from modelsgenesis.configs import FinetuningConfig, InputContract
from modelsgenesis.data import LabelledData, PreparedCase, prepare_cases
from modelsgenesis.errors import DataError
from modelsgenesis.reporting import Reporter
from modelsgenesis.training import Split
from modelsgenesis.training.parts import choose_patch_size


class Parts:
    """Prepares the parts of a split, once for each input contract, into files that the processes map.

    Args:
        data: The labelled data.
        split: Which cases are for what; those that cannot be used are taken out of it.
        folder: Where the files go.
        strict: A bad case is an error.
        reporter: Is told what is left out.
    """

    def __init__(self, data: LabelledData, split: Split, folder: Path, *, strict: bool, reporter: Reporter) -> None:
        self.data, self.split, self.folder = data, split, folder
        self.strict, self.reporter = strict, reporter
        self.shapes: list[tuple[int, ...]] = []
        self._files: dict[tuple[InputContract, str], Path] = {}

    def prepare(self, part: str, arms: Sequence[Arm]) -> None:
        """Prepare a part for every contract of the arms.

        Raises:
            DataError: No case of the part can be used, or one only under some of the contracts.
        """
        for contract in dict.fromkeys(arm.contract for arm in arms):
            if (contract, part) not in self._files:
                self._files[contract, part] = self._write(part, contract)

    def files(self, arms: Mapping[str, Arm]) -> dict[str, dict[str, Path]]:
        """Return by arm the file of each part that has been prepared."""
        return {
            name: {part: path for (contract, part), path in self._files.items() if contract == arm.contract}
            for name, arm in arms.items()
        }

    def _write(self, part: str, contract: InputContract) -> Path:
        wanted = set(getattr(self.split, part))
        chosen = [case for case in self.data.cases if case.name in wanted]
        cases, refused = prepare_cases(chosen, self.data, contract, strict=self.strict)
        for refusal in refused:
            self.reporter.note(f"left out {refusal.source}: {refusal.reason}")
        self._take_out({refusal.source for refusal in refused}, part, contract)
        if part == "training" and not self.shapes:
            self.shapes = [case.image.shape[1:] for case in cases]
        path = self.folder / f"{part}-{len(self._files)}.cases"
        write_payload(path, [_lean(case) for case in cases])
        return path

    def _take_out(self, names: set[str], part: str, contract: InputContract) -> None:
        if not names:
            return
        others = [other for other, written in self._files if written == part and other != contract]
        if others:
            raise DataError(
                f"{self.data.name}: {sorted(names)[0]} cannot be prepared for every arm; take it out of the data set"
            )
        kept = {key: tuple(name for name in value if name not in names) for key, value in asdict(self.split).items()}
        self.split = Split(**kept)


def settle_patch_size(config: FinetuningConfig, shapes: Sequence[tuple[int, ...]]) -> FinetuningConfig:
    """Return the configuration with a patch size: its own, or by the median training image."""
    return config if config.patch_size is not None else config.override(patch_size=choose_patch_size(shapes))


def _lean(case: PreparedCase) -> PreparedCase:
    """Return a case without the way back into its own frame, which no trial needs."""
    return replace(case, volumes=())
