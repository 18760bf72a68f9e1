"""Networks without weights, for weights that are about to come."""

import pytest
import torch

from modelsgenesis.configs import (
    GENESIS_UNET_2019,
    ClassifierConfig,
    GenesisUNetConfig,
    NetworkConfig,
    PlainUNetConfig,
    ResidualUNetConfig,
)
from modelsgenesis.networks import build_network, build_on_meta


@pytest.mark.parametrize(
    "config",
    [
        GENESIS_UNET_2019,
        GenesisUNetConfig(dims=2, widths=(16, 32), norm="group", upsampling="nearest"),
        PlainUNetConfig(widths=(4, 8)),
        ResidualUNetConfig(dims=2, widths=(4, 8), norm="batch"),
        ClassifierConfig(encoder=ResidualUNetConfig(widths=(4, 8)), num_classes=2),
    ],
)
def test_an_empty_network_has_every_tensor_and_no_memory(config: NetworkConfig) -> None:
    empty, built = build_on_meta(config), build_network(config)
    tensors = empty.state_dict()
    assert all(tensor.is_meta for tensor in tensors.values())
    assert all(buffer.is_meta for buffer in empty.buffers())  # none beside the state dict is left uninitialised
    assert {k: (v.shape, v.dtype) for k, v in tensors.items()} == {
        k: (v.shape, v.dtype) for k, v in built.state_dict().items()
    }
    assert [p.requires_grad for p in empty.parameters()] == [p.requires_grad for p in built.parameters()]


def test_nothing_is_left_switched_off_afterwards() -> None:
    build_on_meta(GenesisUNetConfig(widths=(4, 8)))
    torch.manual_seed(0)
    first = build_network(GenesisUNetConfig(widths=(4, 8)))
    torch.manual_seed(1)
    second = build_network(GenesisUNetConfig(widths=(4, 8)))
    assert not torch.equal(first.state_dict()["head.weight"], second.state_dict()["head.weight"])
