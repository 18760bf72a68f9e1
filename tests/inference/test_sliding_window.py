import pytest
import torch
from torch import nn

from modelsgenesis.configs import GenesisUNetConfig, PredictionConfig
from modelsgenesis.errors import ConfigurationError, ShapeError
from modelsgenesis.hardware import choose_hardware
from modelsgenesis.inference import sliding_window as inference
from modelsgenesis.inference.sliding_window import segment, sliding_window, window_size
from modelsgenesis.networks import GenesisUNet

HARDWARE = choose_hardware("cpu", "float32")


class Blur(nn.Module):
    """A network whose answer at a voxel needs its neighbours alone."""

    size_divisor = (4, 4, 4)

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


class Counted(Blur):
    """Remembers how many windows it was called with."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def forward(self, x):
        self.calls.append(len(x))
        return super().forward(x)


def unet(dims=3, **options):
    torch.manual_seed(0)
    shape = {"widths": (4, 8), "norm": "instance", "out_channels": 3, "output": "linear", **options}
    return GenesisUNet(GenesisUNetConfig(dims=dims, **shape)).eval()


def monai(network, image, window, overlap=0.5):
    from monai.inferers.utils import sliding_window_inference

    with torch.no_grad():
        return sliding_window_inference(image[None], window, 4, network, overlap=overlap, mode="gaussian")[0]


@pytest.mark.parametrize("shape", [(40, 24, 20), (16, 50, 9), (17, 16, 31)])
def test_gives_what_monai_gives(shape):
    network, image = unet(), torch.rand(1, *shape)
    result = sliding_window(network, image, patch_size=(16, 16, 16), overlap=0.5, hardware=HARDWARE)
    torch.testing.assert_close(result, monai(network, image, (16, 16, 16)), atol=1e-5, rtol=0)


def test_a_unet_gives_what_a_plain_pass_gives_away_from_the_seams():
    network = unet(norm="batch")  # no statistics over the image, so that an output depends on its surroundings alone
    image = torch.rand(1, 96, 32, 32)
    with torch.no_grad():
        whole = network(image[None])[0]
    result = sliding_window(network, image, patch_size=(48, 32, 32), overlap=0.5, hardware=HARDWARE)
    reach = receptive_reach(network)
    inside = [index for index in range(96) if sees_all(index, (0, 24, 48), 48, 96, reach)]
    assert 20 < len(inside) < 96
    torch.testing.assert_close(result[:, inside], whole[:, inside], atol=1e-4, rtol=0)


def sees_all(index, starts, side, total, reach):
    """Whether every window that holds an index also holds what its output depends on, as far as the image goes."""
    holding = [start for start in starts if start <= index < start + side]
    return all(start <= max(index - reach, 0) and min(index + reach, total - 1) < start + side for start in holding)


def receptive_reach(network):
    """Voxels along an axis that an output voxel can see, at most, by changing them."""
    image = torch.zeros(1, 1, 64, 16, 16)
    changed = image.clone()
    changed[:, :, 32] = 1
    with torch.no_grad():
        differs = (network(image) != network(changed)).any(dim=1)[0].flatten(1).any(dim=1).nonzero().flatten()
    return int(max(32 - differs.min(), differs.max() - 32))


def test_an_image_within_one_window_is_one_call(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    network = Counted().eval()
    image = torch.rand(1, 9, 16, 8)
    result = sliding_window(network, image, patch_size=(16, 16, 16), overlap=0.5, hardware=HARDWARE)
    assert network.calls == [1]
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)  # where two samples are faster than one
    doubled = sliding_window(network, image, patch_size=(16, 16, 16), overlap=0.5, hardware=HARDWARE)
    assert network.calls == [1, 2]
    torch.testing.assert_close(doubled, result)


def test_windows_of_one_value_are_computed_once(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    network = Counted().eval()
    image = torch.zeros(1, 96, 16, 16)
    image[:, 40:56] = torch.rand(16, 16, 16)
    options = {"patch_size": (16, 16, 16), "overlap": 0.5, "hardware": HARDWARE}
    result = sliding_window(network, image, windows_at_once=3, **options)
    assert sum(network.calls) == 4  # one empty window, three that see the middle; of eleven
    torch.testing.assert_close(result, monai(network, image, (16, 16, 16)), atol=1e-5, rtol=0)
    network.calls.clear()
    image[:, 64:] = 1
    result = sliding_window(network, image, windows_at_once=11, **options)
    assert network.calls == [6]  # the two values go with the others
    torch.testing.assert_close(result, monai(network, image, (16, 16, 16)), atol=1e-5, rtol=0)


def test_a_network_with_statistics_of_the_batch_sees_every_window():
    class Normed(Counted):
        def forward(self, x):
            return self.norm(super().forward(x))

    network = Normed()
    network.norm = nn.BatchNorm3d(2, track_running_stats=False)
    options = {"patch_size": (16, 16, 16), "overlap": 0.5, "hardware": HARDWARE}
    sliding_window(network.eval(), torch.zeros(1, 48, 16, 16), windows_at_once=3, **options)
    assert network.calls == [3, 2]
    assert inference.treats_samples_alone(unet(norm="batch"))
    assert not inference.treats_samples_alone(unet(norm="batch", statistics="batch"))


def test_slices_of_a_volume_go_through_a_network_of_two_dimensions():
    network = unet(dims=2)
    volume = torch.rand(1, 20, 12, 5)
    result = sliding_window(network, volume, patch_size=(16, 16), overlap=0.5, hardware=HARDWARE, windows_at_once=2)
    assert result.shape == (3, 20, 12, 5)
    for index in range(5):
        alone = sliding_window(network, volume[..., index], patch_size=(16, 16), overlap=0.5, hardware=HARDWARE)
        torch.testing.assert_close(result[..., index], alone, atol=1e-5, rtol=0)
    small = sliding_window(network, volume[:, :16], patch_size=(16, 16), overlap=0.5, hardware=HARDWARE)
    assert small.shape == (3, 16, 12, 5)


def test_flips_are_the_mean_of_mirrored_passes():
    network, image = unet(), torch.rand(1, 20, 16, 12)
    options = {"patch_size": (16, 16, 16), "hardware": HARDWARE}
    plain = segment(network, image, config=PredictionConfig(), **options)
    torch.testing.assert_close(plain.sum(dim=0), torch.ones(20, 16, 12))
    mirrored = segment(network, image.flip(2), config=PredictionConfig(), **options).flip(2)
    both = segment(network, image, config=PredictionConfig(flips=(1,)), **options)
    torch.testing.assert_close(both, (plain + mirrored) / 2)
    every = segment(network, image, config=PredictionConfig(flips="all"), **options)
    turned = segment(network, image.flip(1, 3), config=PredictionConfig(flips=(0, 1, 2)), **options)
    torch.testing.assert_close(turned.flip(1, 3), every)  # a mirrored scan gives the mirrored answer


def test_refuses_flips_along_an_axis_that_is_not_there():
    config = PredictionConfig(flips=(2,))
    with pytest.raises(ShapeError, match=r"flips along axes \(2,\): the image has 2, numbered from 0"):
        segment(unet(dims=2), torch.rand(1, 8, 8), patch_size=(8, 8), config=config, hardware=HARDWARE)
    with pytest.raises(ConfigurationError, match=r"flips: received \(0, 0\), expected different axes"):
        PredictionConfig(flips=(0, 0))
    with pytest.raises(ConfigurationError, match=r"overlap: received 1\.0, expected 0 to below 1"):
        PredictionConfig(overlap=1.0)
    with pytest.raises(ConfigurationError, match="windows_at_once: received 0, expected above 0"):
        PredictionConfig(windows_at_once=0)


@pytest.mark.parametrize("stitch", ["cpu", "device"])
def test_where_windows_are_put_together_changes_nothing(stitch):
    network, image = unet(), torch.rand(1, 20, 16, 12)
    options = {"patch_size": (16, 16, 16), "overlap": 0.5, "hardware": HARDWARE}
    assert torch.equal(
        sliding_window(network, image, stitch=stitch, **options), sliding_window(network, image, **options)
    )


@pytest.mark.parametrize("problem", [torch.OutOfMemoryError("CUDA"), RuntimeError("can't allocate memory")])
def test_says_what_to_do_when_the_device_is_full(problem):
    class Full(Blur):
        def forward(self, x):
            raise problem

    with pytest.raises(ConfigurationError, match="cpu: its memory does not hold 2 windows of 8×8×8"):
        sliding_window(
            Full(),
            torch.rand(1, 20, 8, 8),
            patch_size=(8, 8, 8),
            overlap=0,
            hardware=HARDWARE,
            windows_at_once=2,
        )


def test_windows_beyond_all_measure_are_refused_before_anything_is_computed(monkeypatch):
    options = {"overlap": 0.5, "hardware": HARDWARE}
    for side in (640, 10**6):
        with pytest.raises(ConfigurationError, match=f"patch_size: windows of {side}×{side}×{side} .* smaller"):
            sliding_window(unet(), torch.rand(1, 20, 20, 20), patch_size=(side,) * 3, **options)
    monkeypatch.setattr(inference, "free_memory", lambda _: 10**6)
    with pytest.raises(ConfigurationError, match="patch_size: a window of 64×64×64 takes more"):
        sliding_window(unet(), torch.rand(1, 64, 64, 64), patch_size=(64,) * 3, **options)
