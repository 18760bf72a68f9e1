"""The registry of cards, download, publishing. The only room that imports `huggingface_hub`.

Reading cards loads neither torch nor the client; the rest is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from modelsgenesis.hub.registry import ModelCard, ModelSource, find_card, list_cards

if TYPE_CHECKING:
    from modelsgenesis.hub.cache import CachedBundle, cached_bundles, prune
    from modelsgenesis.hub.download import copy_bundle, fetch_bundle, verify
    from modelsgenesis.hub.publish import Publication, publish
    from modelsgenesis.hub.review import review_card

_LAZY = {
    "CachedBundle": "cache",
    "Publication": "publish",
    "cached_bundles": "cache",
    "copy_bundle": "download",
    "fetch_bundle": "download",
    "prune": "cache",
    "publish": "publish",
    "review_card": "review",
    "verify": "download",
}

__all__ = [
    "CachedBundle",
    "ModelCard",
    "ModelSource",
    "Publication",
    "cached_bundles",
    "copy_bundle",
    "fetch_bundle",
    "find_card",
    "list_cards",
    "prune",
    "publish",
    "review_card",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
