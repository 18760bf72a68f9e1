"""For torch.hub: `torch.hub.load("owner/repository", "genesis", "genesis-chest-ct-3d")`."""

import sys
from pathlib import Path
from typing import Any

dependencies = ["torch", "numpy", "einops", "safetensors", "huggingface_hub", "yaml", "nibabel", "PIL", "monai"]

sys.path.insert(0, str(Path(__file__).parent / "src"))

import modelsgenesis  # noqa: E402  # torch.hub takes the repository as it is, without installing it


def genesis(name: str, **options: Any) -> Any:
    """Return a pretrained network; see `modelsgenesis.from_pretrained`."""
    return modelsgenesis.from_pretrained(name, **options)
