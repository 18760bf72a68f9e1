"""The registry of cards, download, publishing. The only room that imports `huggingface_hub`.

Reading cards loads neither torch nor the client; the rest is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from modelsgenesis.hub.registry import ModelCard, ModelSource, find_card, list_cards

if TYPE_CHECKING:
    from modelsgenesis.hub.cache import CachedBundle, cached_bundles, is_own_conversion, prune
    from modelsgenesis.hub.client import Progress
    from modelsgenesis.hub.download import fetch_bundle
    from modelsgenesis.hub.local import cached_folder, copy_bundle, verify
    from modelsgenesis.hub.publishing import Publication, publish, push_command
    from modelsgenesis.hub.review import review_card

_LAZY = {
    "CachedBundle": "cache",
    "Progress": "client",
    "Publication": "publishing",
    "cached_bundles": "cache",
    "cached_folder": "local",
    "copy_bundle": "local",
    "fetch_bundle": "download",
    "is_own_conversion": "cache",
    "prune": "cache",
    "publish": "publishing",
    "push_command": "publishing",
    "review_card": "review",
    "verify": "local",
}

__all__ = [
    "CachedBundle",
    "ModelCard",
    "ModelSource",
    "Progress",
    "Publication",
    "cached_bundles",
    "cached_folder",
    "copy_bundle",
    "fetch_bundle",
    "find_card",
    "is_own_conversion",
    "list_cards",
    "prune",
    "publish",
    "push_command",
    "review_card",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
