"""The device, the number format and the memory layout that a network computes with."""

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from modelsgenesis.errors import ConfigurationError

# The kernels of CPUs and of tensor cores read the channels of a voxel at once.
_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}

Placed = TypeVar("Placed", Tensor, nn.Module)


@dataclass(frozen=True)
class Hardware:
    """A device, and the number format of the matrix products on it.

    Attributes:
        device: Where tensors live.
        precision: Number format of convolutions and matrix products; weights and losses stay float32.
    """

    device: torch.device
    precision: Literal["float32", "bfloat16"] = "float32"

    @contextmanager
    def autocast(self) -> Iterator[None]:
        """Call the network in this context.

        In float32, CUDA multiplies all its 24 bits: cuDNN would round to the 11 of TF32, unlike any CPU.
        """
        exact = self.precision == "float32"
        backends: tuple[Any, ...] = (torch.backends.cudnn, torch.backends.cuda.matmul)
        with ExitStack() as stack:
            stack.enter_context(torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=not exact))
            # RuntimeError: the user chose by torch's newer switches, which must not be mixed with these.
            with suppress(RuntimeError):
                for backend in backends if exact and self.device.type == "cuda" else ():
                    stack.callback(setattr, backend, "allow_tf32", backend.allow_tf32)
                    backend.allow_tf32 = False
            yield

    def place(self, what: Placed) -> Placed:
        """Bring a tensor or a network to the device, the channels of [b, c, *spatial] or of kernels last in memory."""
        if isinstance(what, Tensor):
            layout = self._layout(what) or torch.preserve_format
            return what.to(self.device, memory_format=layout, non_blocking=True)
        what.to(self.device)
        for parameter in what.parameters():
            # Not `network.to(memory_format=…)`: it gives kernels of one voxel other strides than their gradients get,
            # of which DistributedDataParallel complains and which it then copies in each step.
            if layout := self._layout(parameter):
                parameter.data = parameter.data.contiguous(memory_format=layout)
        return what

    def _layout(self, tensor: Tensor) -> torch.memory_format | None:
        return None if self.device.type == "mps" else _CHANNELS_LAST.get(tensor.ndim)  # Metal's kernels gain nothing


def free_memory(device: torch.device) -> int | None:
    """Return the bytes that this process may still take on a device, or of memory; None where the system does not tell.

    The limit of a container's group counts.
    """
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # torch's, and free
        return torch.cuda.mem_get_info(device)[0] + kept
    try:
        fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    except OSError:
        return None
    # Not os.sysconf("SC_AVPHYS_PAGES"): it leaves out what the system caches of files and gives back when asked.
    free = 1024 * int(fields["MemAvailable"].split()[0])
    most, used = (Path("/sys/fs/cgroup") / name for name in ("memory.max", "memory.current"))
    if most.is_file() and most.read_text().strip().isdigit():  # "max" where there is no limit
        free = min(free, int(most.read_text()) - int(used.read_text()))
    return free


def lacks_memory(error: BaseException | None) -> bool:
    """Return whether an error says that the memory of a device, or of the machine, did not last."""
    full = isinstance(error, (torch.OutOfMemoryError, MemoryError))
    return full or (isinstance(error, RuntimeError) and "allocate memory" in str(error))  # of the CPU


def check_compiler(device: torch.device) -> None:
    """Refuse `torch.compile` for a CPU where there is no C++ compiler; on CUDA it brings its own.

    Raises:
        ConfigurationError: There is none.
    """
    compiler = os.environ.get("CXX") or "g++"
    if device.type == "cpu" and not (shutil.which(compiler) or shutil.which("clang++")):
        raise ConfigurationError(f"compile: on a CPU it needs a C++ compiler such as {compiler}; set compile=false")


def choose_hardware(device: str = "auto", precision: str = "auto", *, local_rank: int = 0) -> Hardware:
    """Choose where and how to compute.

    Args:
        device: `"auto"` takes CUDA where there is one, else the CPU; or what torch names so, such as Apple's `"mps"`.
        precision: `"auto"`, `"float32"` or `"bfloat16"`.
        local_rank: Number of this process on this machine; each takes the CUDA device of its number.

    Returns:
        The hardware.

    Raises:
        ConfigurationError: The device is unknown or not there.

    Example:
        >>> choose_hardware("cpu", "float32").precision
        'float32'
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise ConfigurationError(f"device: received {device!r}, expected auto, cpu, mps, cuda or cuda:N") from error
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
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigurationError("device: received 'mps', but torch finds no Apple GPU; use --device cpu")
    if precision == "auto":  # bfloat16 where the hardware multiplies it itself; emulated it is slower than float32
        if chosen.type == "cuda":
            fast = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            ask = getattr(torch.cpu, "get_capabilities", dict)  # torch before 2.10 cannot tell
            fast = chosen.type == "cpu" and {"avx512_bf16", "amx_bf16", "bf16"} & {k for k, has in ask().items() if has}
        precision = "bfloat16" if fast else "float32"
    return Hardware(chosen, "bfloat16" if precision == "bfloat16" else "float32")
