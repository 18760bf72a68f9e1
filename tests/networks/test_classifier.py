import pytest
import torch

from modelsgenesis.configs import ClassifierConfig, GenesisUNetConfig, ResidualUNetConfig
from modelsgenesis.errors import ConfigurationError
from modelsgenesis.networks import adapt, build_network

UNET = GenesisUNetConfig(widths=(4, 8, 12), norm="instance")


@pytest.mark.parametrize("encoder", [UNET, ResidualUNetConfig(widths=(4, 8, 12))], ids=["genesis", "residual"])
def test_the_head_sees_the_averages_of_the_chosen_levels_in_their_order(encoder):
    network = build_network(ClassifierConfig(encoder=encoder, num_classes=3, hidden=5, levels=(-1, 0))).eval()
    x = torch.rand(2, 1, 16, 8, 8)
    features = network.features(x)
    expected = torch.cat([features[level].flatten(2).mean(2) for level in (2, 0)], dim=1)
    torch.testing.assert_close(network.embed(x), expected)
    assert network.embed(x).shape == (2, 16)
    assert network(x).shape == (2, 3)


def test_without_levels_the_head_sees_the_deepest_and_an_old_configuration_can_be_read():
    values = ClassifierConfig(encoder=UNET, num_classes=2).to_dict()
    del values["levels"]
    config = ClassifierConfig.from_dict(values)
    assert config.pooled_levels == (2,)
    assert build_network(config).embed(torch.rand(1, 1, 8, 8, 8)).shape == (1, 12)


@pytest.mark.parametrize("levels", [(3,), (-4,), (0, -3), ()])
def test_refuses_levels_that_are_not_there_or_twice(levels):
    with pytest.raises(ConfigurationError, match=r"levels: received .*, expected different numbers from -3 to 2"):
        ClassifierConfig(encoder=UNET, num_classes=2, levels=levels)


def test_a_pretrained_encoder_gets_a_head_on_several_levels():
    pretrained = build_network(UNET)
    network, report = adapt(pretrained, task="cls", num_classes=4, hidden=0, levels=(0, 1, 2))
    assert network.config.levels == (0, 1, 2)
    assert report.new == ("head.weight", "head.bias")
    assert network(torch.rand(1, 1, 8, 8, 8)).shape == (1, 4)
