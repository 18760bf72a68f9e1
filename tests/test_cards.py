"""The cards of the published models: the registry's content."""

import pytest
import torch

from modelsgenesis.checkpoints.conversion import LAYOUTS
from modelsgenesis.configs import GENESIS_UNET_2019, NNUNET_V1_GENESIS, RESENC_L
from modelsgenesis.hub import find_card, list_cards
from modelsgenesis.hub.review import review_card
from modelsgenesis.networks import build_network

PUBLISHED = {
    "genesis-chest-ct-3d": ("MrGiovanni/ModelsGenesis", "Genesis_Chest_CT.pt"),
    "genesis-chest-ct-3d-keras": ("MrGiovanni/ModelsGenesis", "Genesis_Chest_CT.h5"),
    "genesis-chest-ct-nnunet": ("MrGiovanni/ModelsGenesis", "genesis_nnunet_luna16_006.model"),
    "genesis-abdomen-ct-3d": ("MrGiovanni/SuPreM", "self_supervised_models_genesis_unet_620.pt"),
    "genesis-brain-mri-resenc": ("AnonRes/ResEncL-OpenMind-MG", "checkpoint_final.pth"),
}

every_card = pytest.mark.parametrize("name", PUBLISHED)


def test_the_registry_has_the_published_models() -> None:
    found = {card.name: (card.source.repository, card.source.file) for card in list_cards()}
    assert {name: found.get(name) for name in PUBLISHED} == PUBLISHED


@every_card
def test_a_card_describes_a_network_that_exists(name: str) -> None:
    source = find_card(name).source
    assert source.format in LAYOUTS
    with torch.device("meta"):
        network = build_network(source.network)
    assert sum(parameter.numel() for parameter in network.parameters()) == source.parameters
    assert all(side % step == 0 for side, step in zip(source.patch_size, network.size_divisor, strict=True))
    assert network.config.in_channels == len(source.input.channels)


def test_the_networks_are_those_that_the_importers_are_checked_with() -> None:
    assert find_card("genesis-chest-ct-3d").source.network == GENESIS_UNET_2019
    assert find_card("genesis-abdomen-ct-3d").source.network == GENESIS_UNET_2019
    assert find_card("genesis-chest-ct-nnunet").source.network == NNUNET_V1_GENESIS
    assert find_card("genesis-brain-mri-resenc").source.network == RESENC_L


@every_card
@pytest.mark.parametrize(
    "said",
    [
        "not a medical device",
        "11,922,628",
        "not affiliated with or endorsed",
        "Not verified: the published file itself",
        "hosts no copy",
        "non-commercial",
        "@inproceedings{zhou2019models",
        "@article{zhou2021models",
        "## Published results",
    ],
)
def test_a_card_says_what_a_user_must_know(name: str, said: str) -> None:
    text = " ".join(find_card(name).text.split())
    if name == "genesis-brain-mri-resenc" and said == "non-commercial":
        said = "**the card of this one was not seen**"
    assert said in text


@every_card
def test_a_reviewer_misses_nothing_but_results_and_figures_of_ours(name: str) -> None:
    left = review_card(find_card(name).text)
    assert left == ["results: none in model-index", "text: no figure"]
