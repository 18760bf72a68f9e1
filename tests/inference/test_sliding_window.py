from contextlib import nullcontext

import pytest
import torch
from monai.inferers.utils import sliding_window_inference
from torch import nn

from modelsgenesis.configs import GenesisUNetConfig, PredictionConfig
from modelsgenesis.errors import ConfigurationError
from modelsgenesis.hardware import Hardware, choose_hardware
from modelsgenesis.inference import sliding_window as module
from modelsgenesis.inference.sliding_window import sliding_window
from modelsgenesis.networks import GenesisUNet
from recorded_notes import Notes

HARDWARE = choose_hardware("cpu", "float32")
CUBE = (16, 16, 16)


class Blur(nn.Module):
    """A network whose output at a voxel needs its neighbours alone; it remembers how many windows each call had."""

    size_divisor = (4, 4, 4)

    def __init__(self):
        super().__init__()
        self.convolution, self.calls = nn.Conv3d(1, 2, 3, padding=1), []

    def forward(self, x):
        self.calls.append(len(x))
        return self.convolution(x)


def unet(dims=3, **options):
    torch.manual_seed(0)
    shape = {"widths": (4, 8), "norm": "instance", "out_channels": 3, "output": "linear", **options}
    return GenesisUNet(GenesisUNetConfig(dims=dims, **shape)).eval()


def run(network, image, patch_size=CUBE, **config):
    return sliding_window(network, image, patch_size=patch_size, config=PredictionConfig(**config), hardware=HARDWARE)


def monai(network, image):
    with torch.no_grad():
        return sliding_window_inference(image[None], CUBE, 4, network, overlap=0.5, mode="gaussian")[0]


def assert_same(result, expected, atol=1e-5):
    torch.testing.assert_close(result, expected, atol=atol, rtol=0)


@pytest.mark.parametrize("shape", [(40, 24, 20), (16, 50, 9), (17, 16, 31), (3, 3, 3)])
def test_gives_what_monai_gives(shape):
    network, image = unet(), torch.rand(1, *shape)
    assert_same(run(network, image), monai(network, image))


def test_an_image_within_one_window_is_one_plain_pass():
    network, image = Blur().eval(), torch.rand(1, 16, 16, 8)
    result = run(network, image, (13, 16, 7))  # sides that the network takes are chosen
    assert network.calls == [1]
    assert_same(result, network(image[None])[0].detach())


def test_windows_of_one_value_are_computed_once():
    network, image = Blur().eval(), torch.zeros(1, 96, 16, 16)
    image[:, 40:56] = torch.rand(16, 16, 16)
    result = run(network, image, windows_at_once=3)
    assert sum(network.calls) == 4  # one empty window, three that see the middle; of eleven
    assert_same(result, monai(network, image))
    network.calls.clear()
    image[:, 64:] = 1
    result = run(network, image, windows_at_once=11)
    assert network.calls == [6]  # the two values go with the others
    assert_same(result, monai(network, image))


@pytest.mark.parametrize(("statistics", "seen"), [("running", [1]), ("batch", [3, 2])])
def test_a_network_with_statistics_of_the_batch_sees_every_window(statistics, seen):
    calls, network = [], unet(norm="batch", statistics=statistics)
    network.register_forward_hook(lambda _, inputs, __: calls.append(len(inputs[0])))
    run(network, torch.zeros(1, 48, 16, 16), windows_at_once=3)
    assert calls == seen


def test_slices_of_a_volume_go_through_a_network_of_two_dimensions():
    network, volume = unet(dims=2), torch.rand(1, 20, 12, 5)
    result = run(network, volume, (16, 16), windows_at_once=2)
    assert result.shape == (3, 20, 12, 5)
    for index in range(5):
        assert_same(result[..., index], run(network, volume[..., index], (16, 16)))


def test_where_windows_are_stitched_changes_nothing():
    network, image = unet(), torch.rand(1, 20, 16, 12)
    for stitch in ("cpu", "device"):
        assert torch.equal(run(network, image, stitch=stitch), run(network, image))


@pytest.mark.parametrize("problem", [torch.OutOfMemoryError("CUDA"), RuntimeError("can't allocate memory")])
def test_says_what_to_do_when_the_device_is_full(problem):
    class Full(Blur):
        def forward(self, _):
            raise problem

    with pytest.raises(ConfigurationError, match=r"cpu: its memory does not hold 1 window .* take a model of"):
        run(Full(), torch.rand(1, 20, 8, 8), windows_at_once=2)
    dependent = unet(norm="batch", statistics="batch")
    dependent.register_forward_pre_hook(Full.forward)
    with pytest.raises(ConfigurationError, match=r"4 windows of 16×16×16 .* take windows_at_once=1, a model"):
        run(dependent, torch.rand(1, 20, 8, 8))  # fewer would give another result


def test_fewer_windows_are_computed_at_once_where_the_memory_does_not_hold_them():
    class Narrow(Blur):
        def forward(self, x):
            if len(x) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().forward(x)

    network, image, told = Narrow().eval(), torch.rand(1, 96, 16, 16), Notes()
    result = sliding_window(
        network, image, patch_size=CUBE, config=PredictionConfig(), hardware=HARDWARE, reporter=told
    )
    assert_same(result, monai(network.convolution, image))
    assert network.calls == [2, 2, 2, 2, 2, 1]
    assert told.notes[-1] == "cpu: its memory did not last; now 2 windows at once"
    told.notes.clear()
    sliding_window(network, image, patch_size=CUBE, config=PredictionConfig(), hardware=HARDWARE, reporter=told)
    assert not told.notes  # the next scan begins with what fitted


def test_as_many_windows_at_once_as_the_memory_of_a_gpu_holds_and_keep_it_busy(monkeypatch):
    network, cuda = unet(widths=(16, 32)), Hardware(torch.device("cuda"))
    for free, side, expected in ((80e9, 64, 16), (80e9, 32, 128), (2e9, 64, 5), (1e8, 64, 1)):
        monkeypatch.setattr(module, "free_memory", lambda _, free=free: int(free))
        assert module.windows_that_fit(network, (side,) * 3, cuda) == expected
    assert module.windows_that_fit(network, (64, 64, 32), HARDWARE) == 2  # one alone takes slow convolutions on a CPU


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_nothing_in_the_loop_waits_for_the_device(norm):
    class Elsewhere(Hardware):  # tensors without values: whoever reads one fails
        def autocast(self):
            return nullcontext()

    network, image = unet(norm=norm).to("meta"), torch.zeros(1, 40, 24, 20)
    image[:, :20] = torch.rand(20, 24, 20)  # some windows of one value, some not
    result = sliding_window(
        network,
        image,
        patch_size=CUBE,
        config=PredictionConfig(stitch="device", windows_at_once=5),
        hardware=Elsewhere(torch.device("meta")),
    )
    assert result.shape == (3, 40, 24, 20)
    assert result.is_meta


def test_windows_beyond_all_measure_are_refused_before_anything_is_computed(monkeypatch):
    for side in (640, 10**6):
        with pytest.raises(ConfigurationError, match=f"patch_size: windows of {side}×{side}×{side} .* smaller"):
            run(unet(), torch.rand(1, 20, 20, 20), (side,) * 3)
    monkeypatch.setattr(module, "free_memory", lambda _: 10**6)
    with pytest.raises(ConfigurationError, match="patch_size: a window of 64×64×64 takes more"):
        run(unet(), torch.rand(1, 64, 64, 64), (64,) * 3)
