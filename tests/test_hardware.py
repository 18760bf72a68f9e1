import pytest
import torch

from modelsgenesis.configs import GenesisUNetConfig
from modelsgenesis.errors import ConfigurationError
from modelsgenesis.hardware import Hardware, check_compiler, choose_hardware
from modelsgenesis.networks import GenesisUNet


@pytest.mark.parametrize(("dims", "layout"), [(2, torch.channels_last), (3, torch.channels_last_3d)])
def test_channels_are_last_in_memory_which_changes_no_output(dims, layout):
    hardware = choose_hardware("cpu", "float32")
    network = GenesisUNet(GenesisUNetConfig(dims=dims, in_channels=3, widths=(4, 8), norm="instance")).eval()
    batch = torch.rand(2, 3, *(8,) * dims)
    with torch.inference_mode():
        before = network(batch)
        placed = hardware.place(batch)
        after = hardware.place(network)(placed)
    kernels = [p for p in network.parameters() if p.ndim == dims + 2 and p.shape[2] > 1]
    assert all(kernel.is_contiguous(memory_format=layout) for kernel in (placed, *kernels))
    torch.testing.assert_close(before, after, atol=1e-6, rtol=0)


def test_bfloat16_is_used_when_asked_for():
    hardware = choose_hardware("cpu", "bfloat16")
    with hardware.autocast():
        assert (torch.rand(4, 4) @ torch.rand(4, 4)).dtype == torch.bfloat16


def test_float32_on_cuda_is_not_tf32_but_only_in_the_context(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    with Hardware(torch.device("cuda")).autocast():
        assert not torch.backends.cudnn.allow_tf32
    assert torch.backends.cudnn.allow_tf32


def test_each_process_of_a_machine_takes_its_own_device(monkeypatch):
    with pytest.raises(ConfigurationError, match="expected auto, cpu, mps, cuda or cuda:N"):
        choose_hardware("abacus")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    places = [choose_hardware(name, "float32", local_rank=rank).device for name, rank in (("auto", 1), ("cuda:1", 0))]
    assert places == [torch.device("cuda:1")] * 2
    for device, process in (("cuda:0", 1), ("cuda", 2), ("cuda:2", 0)):
        with pytest.raises(ConfigurationError, match=rf"{device} for process {process} .* has 2 CUDA devices; use"):
            choose_hardware(device, "float32", local_rank=process)


def test_an_apple_gpu_is_taken_where_there_is_one_and_missed_in_a_line(monkeypatch):
    with pytest.raises(ConfigurationError, match="'mps', but torch finds no Apple GPU; use --device cpu"):
        choose_hardware("mps")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_hardware("mps") == Hardware(torch.device("mps"), "float32")
    assert choose_hardware().device.type != "mps"  # not every layer has a kernel there
    with choose_hardware("mps", "bfloat16").autocast():
        assert torch.is_autocast_enabled("mps")


def test_compiling_for_a_cpu_needs_a_compiler(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigurationError, match=r"needs a C\+\+ compiler such as no-such-compiler; set"):
        check_compiler(torch.device("cpu"))
    check_compiler(torch.device("cuda"))
