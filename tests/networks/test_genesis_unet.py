import pytest
import torch

from modelsgenesis.configs import GenesisUNetConfig
from modelsgenesis.errors import ShapeError
from modelsgenesis.networks import GenesisUNet

SHAPES = {2: (2, 1, 16, 24), 3: (2, 1, 16, 8, 8)}


def small(**changes):
    return GenesisUNet(GenesisUNetConfig(**{"widths": (4, 8, 16), "norm_groups": 2, **changes})).eval()


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("norm", ["batch", "instance", "group"])
@pytest.mark.parametrize("upsampling", ["transposed", "nearest"])
def test_keeps_the_shape_in_two_and_three_dimensions(dims, norm, upsampling):
    network = small(dims=dims, norm=norm, upsampling=upsampling, out_channels=3)
    batch = torch.rand(SHAPES[dims])
    assert network(batch).shape == (2, 3, *SHAPES[dims][2:])
    shapes = [tuple(level.shape) for level in network.features(batch)]
    assert shapes == [(2, 4 * 2**i, *(side // 2**i for side in SHAPES[dims][2:])) for i in range(3)]


def test_output_is_a_sigmoid_or_linear():
    batch = torch.rand(SHAPES[3])
    restoring, linear = small(), small(output="linear")
    linear.load_state_dict(restoring.state_dict())
    torch.testing.assert_close(restoring(batch), torch.sigmoid(linear(batch)))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 1, 30, 16, 8), r"input sides \(30, 16, 8\) must divide by \(4, 4, 4\): pad to \(32, 16, 8\)"),
        ((1, 2, 16, 16, 8), "expected 1 channels on axis 1, not 2"),
        ((1, 16, 16, 8), r"expected 5 axes \[batch channels x y z\]"),
        ((1, 1, 0, 16, 8), r"pad to \(4, 16, 8\)"),
    ],
)
def test_says_which_input_it_could_take(shape, message):
    with pytest.raises(ShapeError, match=message):
        small()(torch.rand(shape))


def test_only_batch_statistics_depend_on_the_batch_and_neither_leaves_a_trace():
    network, running, batch = small(statistics="batch"), small(statistics="running"), torch.rand(SHAPES[3])
    running.load_state_dict(network.state_dict())
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    assert not torch.allclose(network(batch)[:1], network(batch[:1]), atol=1e-4)
    assert all(torch.equal(buffer, before[name]) for name, buffer in network.named_buffers())
    torch.testing.assert_close(running(batch)[:1], running(batch[:1]))
    assert torch.equal(running.train()(batch), network.train()(batch))
