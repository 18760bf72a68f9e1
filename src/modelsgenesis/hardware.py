"""The device, the number format and the memory layout that a network computes with."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from modelsgenesis.errors import ConfigurationError

# The kernels of CPUs and of tensor cores read the channels of a voxel at once.
_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


@dataclass(frozen=True)
class Hardware:
    """A device, the number format of the matrix products on it, and the memory layout that suits both.

    Attributes:
        device: Where tensors live.
        dtype: Number format of convolutions and matrix products; weights and losses stay float32.
    """

    device: torch.device
    dtype: torch.dtype = torch.float32

    @contextmanager
    def autocast(self) -> Iterator[None]:
        """Call the network in this context."""
        exact = self.dtype == torch.float32
        whole = _whole_float32() if exact and self.device.type == "cuda" else nullcontext()
        with torch.autocast(self.device.type, dtype=self.dtype, enabled=not exact), whole:
            yield

    def for_results(self) -> "Hardware":
        """Return the same device in float32, as everything is measured: training may be faster and less exact."""
        return replace(self, dtype=torch.float32)

    @property
    def precision(self) -> str:
        """The name of the number format, as configurations and results write it."""
        return str(self.dtype).removeprefix("torch.")

    def recorded(self) -> dict[str, str]:
        """Return what stands beside everything that was computed here: number format and kind of device."""
        return {"precision": self.precision, "device": self.device.type}

    def place(self, tensor: Tensor) -> Tensor:
        """Bring [b, c, *spatial] to the device with the channels last in memory; other shapes as they are."""
        layout = _CHANNELS_LAST.get(tensor.ndim, torch.preserve_format)
        return tensor.to(self.device, memory_format=layout, non_blocking=True)

    def place_network(self, network: nn.Module) -> nn.Module:
        """Bring a network to the device with the channels of its kernels last in memory."""
        network.to(self.device)
        for parameter in network.parameters():
            # Not `network.to(memory_format=…)`: it gives kernels of one voxel other strides than their gradients get,
            # of which DistributedDataParallel complains and which it then copies in each step.
            if layout := _CHANNELS_LAST.get(parameter.ndim):
                parameter.data = parameter.data.contiguous(memory_format=layout)
        return network

    def describe(self) -> str:
        """Return one human-readable phrase: device, number format, threads."""
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "CPU"
        threads = f", {torch.get_num_threads()} threads" if self.device.type == "cpu" else ""
        return f"{name}{threads}, {self.precision}, channels last"


@contextmanager
def _whole_float32() -> Iterator[None]:
    """Let CUDA multiply all 24 bits of float32; cuDNN would round to the 11 of TF32, unlike any CPU."""
    backends: tuple[Any, ...] = (torch.backends.cudnn, torch.backends.cuda.matmul)
    try:
        before = [backend.allow_tf32 for backend in backends]
    except RuntimeError:  # the user chose by torch's newer switches, which must not be mixed with these
        yield
        return
    try:
        for backend in backends:
            backend.allow_tf32 = False
        yield
    finally:
        for backend, allowed in zip(backends, before, strict=True):
            backend.allow_tf32 = allowed


def free_memory(device: torch.device) -> int | None:
    """Return the bytes that this process may still take on a device, or of memory; None where the system does not tell.

    The system's own limits count: of a container's group, and of the address space (`ulimit -v`).
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        mapped = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None
    import resource  # Unix alone has it

    # Not os.sysconf("SC_AVPHYS_PAGES"): it leaves out what the system caches of files and gives back when asked.
    limits = [1024 * int(fields["MemAvailable"].split()[0])]
    most, used = (Path("/sys/fs/cgroup") / name for name in ("memory.max", "memory.current"))
    if most.is_file() and most.read_text().strip().isdigit():  # "max" where there is no limit
        limits.append(int(most.read_text()) - int(used.read_text()))
    space = resource.getrlimit(resource.RLIMIT_AS)[0]
    if space != resource.RLIM_INFINITY:
        limits.append(space - mapped)
    return min(limits)


def check_compiler(device: torch.device) -> None:
    """Refuse `torch.compile` for a CPU where there is no C++ compiler; on CUDA it brings its own.

    Raises:
        ConfigurationError: There is none.
    """
    compiler = os.environ.get("CXX") or "g++"
    if device.type == "cpu" and not (shutil.which(compiler) or shutil.which("clang++")):
        raise ConfigurationError(f"compile: on a CPU it needs a C++ compiler such as {compiler}; set compile=false")


def computes_bfloat16(device: torch.device) -> bool:
    """Tell whether the hardware multiplies bfloat16 matrices itself."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        ask = getattr(torch.cpu, "get_capabilities", None)  # torch before 2.10 cannot tell
        capabilities = ask() if ask else {}
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("bf16"))
    return False


def choose_hardware(device: str = "auto", precision: str = "auto", *, local_rank: int = 0) -> Hardware:
    """Choose where and how to compute.

    Args:
        device: `"auto"` takes CUDA where there is one, else the CPU; or a device as torch names it.
        precision: `"auto"`, `"float32"` or `"bfloat16"`.
        local_rank: Number of this process on this machine; each takes the CUDA device of its number.

    Returns:
        The hardware.

    Raises:
        ConfigurationError: The device is unknown or not there.

    Example:
        >>> choose_hardware("cpu", "float32").dtype
        torch.float32
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise ConfigurationError(f"device: received {device!r}, expected auto, cpu, cuda or cuda:N") from error
    if chosen.type == "cuda":
        if not torch.cuda.is_available():
            raise ConfigurationError(f"device: received {device!r}, but there is no CUDA device; use --device cpu")
        count, index = torch.cuda.device_count(), local_rank if chosen.index is None else chosen.index
        if index >= count or (local_rank and index != local_rank):
            raise ConfigurationError(
                f"device: received {device} for process {local_rank} of this machine, which has {count} CUDA devices; "
                "use --device cuda, which gives each process its own, with no more processes than devices"
            )
        chosen = torch.device("cuda", index)
    # Emulated bfloat16 would be slower than float32.
    wanted = precision == "bfloat16" or (precision == "auto" and computes_bfloat16(chosen))
    return Hardware(chosen, torch.bfloat16 if wanted else torch.float32)
