import os
import traceback
from contextlib import suppress

import pytest
import torch

from modelsgenesis.configs import GenesisUNetConfig
from modelsgenesis.errors import ConfigurationError
from modelsgenesis.hardware import Hardware, check_compiler, choose_hardware, predicting_hardware
from modelsgenesis.networks import GenesisUNet


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize(("norm", "is_last"), [("instance", False), ("batch", True)])
def test_the_norm_decides_the_layout_which_changes_no_output(dims, norm, is_last):
    layout = {2: torch.channels_last, 3: torch.channels_last_3d}[dims]
    hardware = choose_hardware("cpu", "float32")
    network = GenesisUNet(GenesisUNetConfig(dims=dims, in_channels=3, widths=(8, 16), norm=norm)).eval()
    batch = torch.rand(2, 3, *(8,) * dims)
    with torch.inference_mode():
        before = network(batch)
        after = hardware.place(network)(hardware.place(batch))
        features = network.features(batch)
    kernels = [p for p in network.parameters() if p.ndim == dims + 2 and p.shape[2] > 1]
    assert all(tensor.is_contiguous(memory_format=layout) is is_last for tensor in (*kernels, *features))
    torch.testing.assert_close(before, after, atol=1e-6, rtol=0)


def test_bfloat16_is_used_when_asked_for():
    hardware = choose_hardware("cpu", "bfloat16")
    with hardware.autocast():
        assert (torch.rand(4, 4) @ torch.rand(4, 4)).dtype == torch.bfloat16


def switches():
    """Return what the process has chosen for products of float32, where torch can tell."""
    backends = torch.backends
    parts = (backends.cuda.matmul, backends.cudnn.conv, backends.mkldnn.matmul, backends.mkldnn.conv)
    with suppress(RuntimeError):
        return torch.get_float32_matmul_precision(), backends.cudnn.allow_tf32
    return [part.fp32_precision for part in parts]


def choose_by_newer_switches(precision):
    if not hasattr(torch.backends, "fp32_precision"):
        pytest.skip("they came with torch 2.9")
    torch.backends.fp32_precision = precision


CHOICES = {
    "nothing": lambda: None,
    "old": lambda: torch.set_float32_matmul_precision("medium"),
    "new": lambda: choose_by_newer_switches("tf32"),
    "new, none of it": lambda: choose_by_newer_switches("ieee"),
}


@pytest.mark.parametrize("choice", CHOICES)
def test_float32_is_ieee_and_tf32_is_not_in_the_context_alone_whatever_the_user_chose(choice):
    """In a process of its own, since the newer switches cannot be set back to no choice."""
    child = os.fork()
    if not child:
        try:
            CHOICES[choice]()
            before = switches()
            for precision, told in (("float32", ("highest", False, "ieee")), ("tf32", ("high", True, "tf32"))):
                with Hardware(torch.device("cuda"), precision).products():
                    assert set(switches()) <= set(told), switches()
                assert switches() == before
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_format_that_the_hardware_has_not_is_refused(monkeypatch):
    with pytest.raises(ConfigurationError, match="received tf32, which CUDA alone has, not cpu; use float32 or auto"):
        choose_hardware("cpu", "tf32")
    for name, value in {"is_available": True, "device_count": 1, "is_bf16_supported": False}.items():
        monkeypatch.setattr(torch.cuda, name, lambda value=value, **_: value)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Tesla T4")
    for precision in ("bfloat16", "tf32"):
        with pytest.raises(ConfigurationError, match=f"received {precision}, which Tesla T4 has not; use float32"):
            choose_hardware("cuda", precision)
    assert choose_hardware("cuda").precision == "float32"


@pytest.mark.parametrize(
    ("visible", "told"), [("", "CUDA_VISIBLE_DEVICES hides every GPU; unset it, or"), (None, "no CUDA device;")]
)
def test_a_gpu_that_is_not_there_or_hidden(monkeypatch, visible, told):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with pytest.raises(ConfigurationError, match=rf"received 'cuda', but .*{told} use --device cpu"):
        choose_hardware("cuda")


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
    monkeypatch.setattr("modelsgenesis.hardware.find_spec", lambda _: None)
    with pytest.raises(ConfigurationError, match="on CUDA it needs Triton: pip install triton, or set compile=false"):
        check_compiler(torch.device("cuda"))


@pytest.mark.parametrize("has", [True, False])
def test_predictions_are_in_tf32_where_a_card_has_it_and_else_in_float32(monkeypatch, has):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: has)
    assert predicting_hardware(torch.device("cuda")).precision == ("tf32" if has else "float32")
    assert predicting_hardware(torch.device("cpu")).precision == "float32"
