"""The registry of cards, downloads and publishing. The only room that imports `huggingface_hub`.

What is here loads neither torch nor the Hub's client. The rest is in `download` (from a name to a bundle, and what is
kept), `push` (from a run to a repository), `privacy` (what must not leave) and `client` (all that is said to a server).
"""

from modelsgenesis.hub.registry import ModelCard as ModelCard
from modelsgenesis.hub.registry import ModelSource as ModelSource
from modelsgenesis.hub.registry import find_card as find_card
from modelsgenesis.hub.registry import list_cards as list_cards
