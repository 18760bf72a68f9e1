"""The device, the number format and the memory layout that a network computes with."""

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from modelsgenesis.errors import ConfigurationError

Precision = Literal["float32", "tf32", "bfloat16"]

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
    precision: Precision = "float32"

    @contextmanager
    def autocast(self) -> Iterator[None]:
        """Call the network in this context."""
        with self.products(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            yield

    @contextmanager
    def products(self) -> Iterator[None]:
        """Multiply float32 as `precision` says, in gradients too, whatever the switches of the process say elsewhere.

        In float32, CUDA multiplies all its 24 bits: cuDNN would round to the 11 of TF32, unlike any CPU.
        """
        cudnn: Any = torch.backends.cudnn
        tf32 = self.precision == "tf32"
        wanted = "high" if tf32 else "highest"
        with ExitStack() as stack:
            try:
                before, convolutions = torch.get_float32_matmul_precision(), cudnn.allow_tf32
            except RuntimeError:  # the user chose by the switches of torch 2.9, which must not be mixed with the older
                mkldnn: Any = torch.backends.mkldnn
                for part in (torch.backends.cuda.matmul, cudnn.conv, mkldnn.matmul, mkldnn.conv):
                    stack.callback(setattr, part, "fp32_precision", part.fp32_precision)
                    part.fp32_precision = "tf32" if tf32 else "ieee"
            else:
                stack.callback(setattr, cudnn, "allow_tf32", convolutions)
                cudnn.allow_tf32 = tf32
                if before != wanted:  # else a default would become a choice
                    stack.callback(torch.set_float32_matmul_precision, before)
                    torch.set_float32_matmul_precision(wanted)
            yield

    def place(self, what: Placed) -> Placed:
        """Bring a tensor or a network to the device.

        The layout of its kernels becomes that of all it computes: channels last for batch norm, which is fastest over
        the channels of a voxel; contiguous for the other norms, which are over the voxels of a channel.
        """
        if isinstance(what, Tensor):
            return what.to(self.device, non_blocking=self.device.type == "cuda")
        what.to(self.device)
        if self.device.type != "mps" and any(isinstance(module, _BatchNorm) for module in what.modules()):
            for parameter in what.parameters():
                # Not `network.to(memory_format=…)`: it gives kernels of one voxel other strides than their gradients
                # get, of which DistributedDataParallel complains and which it then copies in each step.
                if layout := _CHANNELS_LAST.get(parameter.ndim):
                    parameter.data = parameter.data.contiguous(memory_format=layout)
        return what


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
    told = str(error) if isinstance(error, RuntimeError) else ""
    return full or "allocate memory" in told or "Triton Error [CUDA]: out of memory" in told  # the first is of the CPU


def check_compiler(device: torch.device) -> None:
    """Refuse `torch.compile` where what it needs is missing: on CUDA Triton, on a CPU a C++ compiler.

    Raises:
        ConfigurationError: It is not there.
    """
    compiler = os.environ.get("CXX") or "g++"
    if device.type == "cuda" and find_spec("triton") is None:
        raise ConfigurationError("compile: on CUDA it needs Triton: pip install triton, or set compile=false")
    if device.type == "cpu" and not (shutil.which(compiler) or shutil.which("clang++")):
        raise ConfigurationError(f"compile: on a CPU it needs a C++ compiler such as {compiler}; set compile=false")


def choose_hardware(device: str = "auto", precision: str = "auto", *, local_rank: int = 0) -> Hardware:
    """Choose where and how to compute.

    Args:
        device: `"auto"` takes CUDA where there is one, else the CPU; or what torch names so, such as Apple's `"mps"`.
        precision: `"auto"`, `"float32"`, `"bfloat16"`, or on CUDA `"tf32"`.
        local_rank: Number of this process on this machine; each takes the CUDA device of its number.

    Returns:
        The hardware.

    Raises:
        ConfigurationError: The device is unknown, not there, or has no such numbers.

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
            if os.environ.get("CUDA_VISIBLE_DEVICES", "all") in ("", "-1"):
                told = "but CUDA_VISIBLE_DEVICES hides every GPU; unset it, or use --device cpu"
                raise ConfigurationError(f"device: received {device!r}, {told}")
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
    return Hardware(chosen, _choose_precision(chosen, precision))


def predicting_hardware(device: torch.device) -> Hardware:
    """Return how to predict by default: on CUDA in TF32 where the card has it, else in float32.

    Emulated on a CPU, TF32 moved 0.07 voxels in 10,000, in the worst scan 0.42; bfloat16 moved more. No card has
    predicted in it yet.
    """
    has_tf32 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return Hardware(device, "tf32" if has_tf32 else "float32")


def _choose_precision(chosen: torch.device, precision: str) -> Precision:
    if precision == "float32":
        return precision
    if chosen.type == "cuda":  # bfloat16 where the hardware multiplies it itself; emulated it is slower than float32
        fast = torch.cuda.is_bf16_supported(including_emulation=False)  # cards that have it have TF32
    else:
        ask = getattr(torch.cpu, "get_capabilities", dict)  # torch before 2.10 cannot tell
        held = {name for name, has in ask().items() if has}
        fast = chosen.type == "cpu" and not held.isdisjoint(("avx512_bf16", "amx_bf16", "bf16"))
    if precision == "auto":
        return "bfloat16" if fast else "float32"
    if precision == "tf32" and chosen.type != "cuda":
        raise ConfigurationError(f"precision: received tf32, which CUDA alone has, not {chosen}; use float32 or auto")
    if chosen.type == "cuda" and not fast:
        name = torch.cuda.get_device_name(chosen)
        raise ConfigurationError(f"precision: received {precision}, which {name} has not; use float32 or auto")
    return cast("Precision", precision)
