"""The poster's ablation: one Genesis a scheme, pretrained on the scans of everyone but the test patients."""

from collections.abc import Sequence
from pathlib import Path

from modelsgenesis.configs import PretrainingConfig, scheme
from modelsgenesis.configs.comparison import ArmConfig, file_name
from modelsgenesis.data import FileImage, LabelledCase, LabelledData
from modelsgenesis.errors import DataError, Interrupted
from modelsgenesis.pretraining import pretrain
from modelsgenesis.reporting import Reporter
from modelsgenesis.training import Split
from modelsgenesis.training.run import RUN_NAME


def pretrain_schemes(
    schemes: Sequence[str],
    data: LabelledData,
    split: Split,
    folder: Path,
    config: PretrainingConfig,
    *,
    patient_pattern: str | None = None,
    device: str = "auto",
    reporter: Reporter,
) -> tuple[ArmConfig, ...]:
    """Pretrain a Genesis with the deformations of each scheme; what has finished before is not repeated.

    Args:
        schemes: Of the poster: `"I"`, `"III+IV"`, …
        data: Whose images are learnt from, without their labels.
        split: Its training patients are learnt from and its validation patients validated on; its test patients
            are not touched.
        folder: Gets a run a scheme.
        config: The recipe that all share but for the deformations.
        patient_pattern: A regular expression on a file's name whose first group is the patient.
        device: Where to compute.
        reporter: Is told the progress.

    Returns:
        An arm a scheme.

    Raises:
        DataError: The images do not lie in files of their own.
        ConfigurationError: There is no such scheme.
        ResumeError: The folder holds Geneses of another recipe.
    """
    recipes = {name: config.override(pretext=scheme(name)) for name in schemes}
    training, validation = (_files(data, names) for names in (split.training, split.validation))
    arms: list[ArmConfig] = []
    for name, recipe in recipes.items():
        run = folder / file_name(name)
        arms.append(ArmConfig(name=f"Genesis {name}", init=str(run)))
        resume = (run / RUN_NAME).exists()
        if not resume:
            reporter.note(f"pretraining with scheme {name} on {len(training)} scans; no test patient is among them")
        try:
            pretrain(
                training,
                run,
                config=recipe,
                modality=data.modality or "auto",
                validation_source=validation or None,
                patient_pattern=patient_pattern,
                device=device,
                resume=resume,
                reporter=reporter,
            )
        except Interrupted as signal:
            raise Interrupted(
                signal.signum, f"interrupted while pretraining with scheme {name}; the same command goes on"
            ) from None
    return tuple(arms)


def _files(data: LabelledData, names: Sequence[str]) -> list[str | Path]:
    """Return the files of the images of some cases."""
    wanted = set(names)
    return [_file(case) for case in data.cases if case.name in wanted]


def _file(case: LabelledCase) -> Path:
    image = case.images[0]
    if not isinstance(image, FileImage) or image.index is not None or len(case.images) != 1:
        raise DataError(
            f"{image.source}: schemes are pretrained on files of one image each; pretrain them by the pretrain command "
            "and name the runs with --init"
        )
    return image.path
