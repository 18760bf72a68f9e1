"""The registry of cards, download, publishing. The only room that imports `huggingface_hub`.

Reading cards loads neither torch nor the client; the rest is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from modelsgenesis.hub.registry import ModelCard, ModelSource, find_card, list_cards  # noqa: F401

if TYPE_CHECKING:
    from modelsgenesis.hub.cache import CachedBundle, cached_bundles, is_own_conversion, prune  # noqa: F401
    from modelsgenesis.hub.client import Progress  # noqa: F401
    from modelsgenesis.hub.download import fetch_bundle  # noqa: F401
    from modelsgenesis.hub.local import cached_folder, copy_bundle, verify  # noqa: F401
    from modelsgenesis.hub.publishing import Publication, publish  # noqa: F401
    from modelsgenesis.hub.review import review_card  # noqa: F401

_ROOMS = {
    "cache": ("CachedBundle", "cached_bundles", "is_own_conversion", "prune"),
    "client": ("Progress",),
    "download": ("fetch_bundle",),
    "local": ("cached_folder", "copy_bundle", "verify"),
    "publishing": ("Publication", "publish"),
    "review": ("review_card",),
}
_LAZY = {name: room for room, names in _ROOMS.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
