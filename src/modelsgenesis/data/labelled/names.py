"""What names say: of channels the modality."""

from collections.abc import Sequence

_MODALITIES = {
    "ct": "ct",
    "mri": "mri",
    "mr": "mri",
    "t1": "mri",
    "t1w": "mri",
    "t1gd": "mri",
    "t1ce": "mri",
    "t2": "mri",
    "t2w": "mri",
    "flair": "mri",
    "adc": "mri",
    "dwi": "mri",
    "xray": "xray",
    "us": "ultrasound",
    "ultrasound": "ultrasound",
}


def modality_of(channels: Sequence[str]) -> str | None:
    """Return the modality of which all channels speak, or None.

    Example:
        >>> modality_of(["FLAIR", "T1w", "t1gd", "T2w"])
        'mri'
    """
    said = {_MODALITIES.get(name.lower().replace("-", "").replace(" ", "")) for name in channels}
    return said.pop() if len(said) == 1 else None
