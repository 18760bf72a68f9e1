import pytest
import torch

from modelsgenesis.configs import GenesisUNetConfig, PlainUNetConfig
from modelsgenesis.networks import adapt, build_network
from modelsgenesis.networks.adaptation import rescale_kernels


def grown(config, factor=6.0):
    """Return a network whose kernels have grown, as they do in training."""
    torch.manual_seed(0)
    network = build_network(config)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "conv" in name and "norm" not in name:
                parameter.mul_(factor)
    network.train()
    network(torch.rand(4, 1, *(16,) * config.dims))  # batch norm: averages of the grown kernels
    return network.eval()


@pytest.mark.parametrize("norm", ["batch", "instance"])
@pytest.mark.parametrize("dims", [2, 3])
def test_the_output_stays_and_the_kernels_have_the_size_of_random_ones(norm, dims):
    config = GenesisUNetConfig(dims=dims, widths=(4, 8), norm=norm, norm_epsilon=1e-10)
    network = grown(config)
    x = torch.rand(2, 1, *(16,) * dims, generator=torch.Generator().manual_seed(1))
    before = network(x)
    factors = rescale_kernels(network)
    assert torch.allclose(network(x), before, atol=2e-4)
    assert all(factor < 0.5 for factor in factors.values())
    kernel = network.encoder.levels[1][1].convolution.weight
    assert kernel.norm().item() == pytest.approx((kernel.shape[0] / 3) ** 0.5, rel=1e-4)


def test_serves_the_nnunet_family():
    config = PlainUNetConfig(dims=2, widths=(4, 8), strides=((1, 1), (2, 2)), norm_epsilon=1e-10)
    network = grown(config)
    x = torch.rand(2, 1, 16, 16)
    before = network(x)
    assert rescale_kernels(network)
    assert torch.allclose(network(x), before, atol=2e-4)


def test_adapt_rescales_a_copy_and_says_so():
    network = grown(GenesisUNetConfig(widths=(4, 8), norm="instance", norm_epsilon=1e-10))
    size = network.encoder.levels[0][0].convolution.weight.norm().item()
    adapted, report = adapt(network, task="seg", num_classes=2, rescale=True)
    assert network.encoder.levels[0][0].convolution.weight.norm().item() == size
    x = torch.rand(1, 1, 16, 16, 16)
    for ours, theirs in zip(adapted.features(x), network.features(x), strict=True):
        assert torch.allclose(ours, theirs, atol=2e-4)
    assert "6 kernels rescaled" in report.summary()
