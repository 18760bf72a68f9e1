"""From a run to a repository on the Hub: checked here first, then one atomic commit."""

import hashlib
import json
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from modelsgenesis.checkpoints import render_card
from modelsgenesis.checkpoints.bundle import CARD_NAME, CONFIG_NAME, WEIGHTS_NAME, load_bundle
from modelsgenesis.configs import BundleConfig
from modelsgenesis.configs.front_matter import BEGIN, CardParts, split_card
from modelsgenesis.errors import AccessError, GenesisError, HubError, HubUnreachableError, PublishError, UnknownModelError
from modelsgenesis.hub import privacy
from modelsgenesis.hub.cache import Cache, key_of, open_cache, sha256_of, git_sha1_of
from modelsgenesis.hub.client import SIGN_IN, Snapshot, api, endpoint, has_token, patiently, take_snapshot, translated
from modelsgenesis.hub.registry import is_inside
from modelsgenesis.hub.review import IMAGE

_OURS = ("library_name", "pipeline_tag", "model-index", "tags")  # keys of the header that a push renews
