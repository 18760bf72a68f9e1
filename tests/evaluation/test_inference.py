import pytest
import torch
from torch import nn

from modelsgenesis.configs import GenesisUNetConfig
from modelsgenesis.errors import ShapeError
from modelsgenesis.evaluation import sliding_window, window_size
from modelsgenesis.hardware import choose_hardware
from modelsgenesis.networks import GenesisUNet

HARDWARE = choose_hardware("cpu", "float32")


class Blur(nn.Module):
    """A network whose answer at a voxel needs its neighbours alone."""

    divisor = (4, 4, 4)

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv3d(1, 2, 3, padding=1)

    def forward(self, x):
        return self.convolution(x)


def test_one_window_over_everything_is_a_plain_pass():
    network = GenesisUNet(GenesisUNetConfig(widths=(4, 8), norm="instance", out_channels=3, output="linear")).eval()
    image = torch.rand(1, 16, 12, 8)
    result = sliding_window(network, image, patch_size=(16, 12, 8), overlap=0.5, hardware=HARDWARE)
    with torch.no_grad():
        torch.testing.assert_close(result, network(image[None])[0], atol=1e-5, rtol=0)


def test_overlapping_windows_equal_a_plain_pass_away_from_the_seams():
    torch.manual_seed(0)
    network = Blur().eval()
    image = torch.rand(1, 24, 18, 12)
    with torch.no_grad():
        whole = network(image[None])[0]
    result = sliding_window(network, image, patch_size=(12, 12, 12), overlap=0.5, hardware=HARDWARE)
    # Windows start every 6 voxels; at their borders inside the image they see zeros where a plain pass sees neighbours.
    seams = torch.zeros(24, 18, 12, dtype=torch.bool)
    seams[[6, 11, 12, 17]] = True
    seams[:, [6, 11]] = True
    torch.testing.assert_close(result[:, ~seams], whole[:, ~seams], atol=1e-5, rtol=0)
    assert not torch.allclose(result[:, seams], whole[:, seams], atol=1e-5)


@pytest.mark.parametrize("shape", [(5, 30, 7), (3, 3, 3), (40, 9, 8)])
def test_any_shape_comes_back_as_it_was(shape):
    result = sliding_window(
        Blur().eval(), torch.rand(1, *shape), patch_size=(10, 10, 10), overlap=0.25, hardware=HARDWARE
    )
    assert result.shape == (2, *shape)
    assert torch.isfinite(result).all()


def test_refuses_an_image_of_other_axes():
    with pytest.raises(ShapeError, match=r"image of shape \(1, 8, 8\): expected \[channels, 3 spatial axes\]"):
        sliding_window(Blur(), torch.rand(1, 8, 8), patch_size=(8, 8, 8), overlap=0, hardware=HARDWARE)


def test_windows_are_rounded_up_to_what_the_network_takes():
    assert window_size((10, 16, 1), (4, 8, 2)) == (12, 16, 2)
