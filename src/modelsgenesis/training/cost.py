"""What a run cost: time, hours of processors, and energy where the machine tells it."""

import ctypes
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from modelsgenesis.files import write_atomically
from modelsgenesis.hardware import Hardware
from modelsgenesis.reporting import Reporter

COST_NAME = "cost.json"
_POWERCAP = Path("/sys/class/powercap")
_BETWEEN_READINGS = 60.0  # seconds; a counter of a CPU package starts anew after some minutes of full power
_JOULES_PER_KWH = 3.6e6


class EnergyCounter(Protocol):
    """A counter of energy that only grows.

    Attributes:
        what: Whose energy it counts.
    """

    what: str

    def joules(self) -> float:
        """Return the energy since any fixed moment.

        Raises:
            OSError: It cannot be read any more.
        """
        ...


@dataclass
class RaplCounter:
    """The energy of a CPU package, of all programs on it, from Linux' powercap.

    Attributes:
        zone: Its folder, such as `/sys/class/powercap/intel-rapl:0`.
        what: Whose energy it counts.
    """

    zone: Path
    what: str = "CPU packages (RAPL)"
    _last: int = field(default=0, init=False)
    _wrapped: int = field(default=0, init=False)

    def joules(self) -> float:
        """Return the energy; between two readings the counter may start anew once."""
        now = int((self.zone / "energy_uj").read_text())
        if now < self._last:
            self._wrapped += int((self.zone / "max_energy_range_uj").read_text())
        self._last = now
        return (self._wrapped + now) / 1e6


@dataclass
class NvmlCounter:
    """The energy of an NVIDIA device since its driver was loaded, from the driver's own library.

    Attributes:
        library: `libnvidia-ml`.
        handle: Of the device.
        what: Whose energy it counts.
    """

    library: Any
    handle: Any
    what: str = "GPU (NVML)"

    def joules(self) -> float:
        """Return the energy."""
        millijoules = ctypes.c_ulonglong()
        if self.library.nvmlDeviceGetTotalEnergyConsumption(self.handle, ctypes.byref(millijoules)):
            raise OSError("NVML tells no energy")
        return millijoules.value / 1e3


def find_rapl(powercap: Path = _POWERCAP) -> list[EnergyCounter]:
    """Return the counters of the CPU packages that may be read; often only root may."""
    zones = [zone for zone in sorted(powercap.glob("*-rapl:*")) if zone.name.count(":") == 1]
    return [RaplCounter(zone) for zone in zones if os.access(zone / "energy_uj", os.R_OK)]


def find_nvml(identifier: str) -> list[EnergyCounter]:
    """Return the counter of the device with this UUID, or none where the driver has no such library."""
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
        handle = ctypes.c_void_p()
        name = f"GPU-{identifier.removeprefix('GPU-')}".encode()
        if library.nvmlInit_v2() or library.nvmlDeviceGetHandleByUUID(name, ctypes.byref(handle)):
            return []
    except (OSError, AttributeError):
        return []
    return [NvmlCounter(library, handle)]


def find_counters(hardware: Hardware) -> list[EnergyCounter]:
    """Return every counter of energy that this machine lets us read for the hardware of a run."""
    if hardware.device.type != "cuda":
        return find_rapl()
    import torch

    return [*find_rapl(), *find_nvml(str(torch.cuda.get_device_properties(hardware.device).uuid))]


class Meter(Reporter):
    """Adds up what a run costs, over every time that it was resumed; steps that were lost count too.

    Args:
        path: JSON file that keeps the sums between resumes.
        gpus: Devices in use, over all processes.
        counters: Of energy; those that fail when first read are left out.
    """

    def __init__(self, path: Path, *, gpus: int = 0, counters: Sequence[EnergyCounter] = ()) -> None:
        self.path, self.gpus = path, gpus
        self.before = _earlier(path)
        self.started, self.cpu_started = time.monotonic(), _cpu_seconds()
        self.read_at = self.started
        self.counters: list[tuple[EnergyCounter, float]] = []
        for counter in counters:
            try:
                self.counters.append((counter, counter.joules()))
            except OSError:
                continue
        self.joules = 0.0
        self.complete = bool(self.counters) and self.before.get("joules", 0.0) is not None

    def step(self, step: int, loss: float, samples_per_second: float, waiting: float) -> None:
        """Read the energy now and then."""
        if time.monotonic() - self.read_at > _BETWEEN_READINGS:
            self._read_energy()

    def _read_energy(self) -> None:
        self.read_at = time.monotonic()
        try:
            self.joules = sum(counter.joules() - start for counter, start in self.counters)
        except (OSError, ValueError):  # a part of the energy would be no figure at all
            self.complete = False

    def sums(self) -> dict[str, Any]:
        """Return seconds and joules of the whole run; joules are None where they are not known."""
        self._read_energy()
        wall = time.monotonic() - self.started
        joules = self.before.get("joules", 0.0)
        return {
            "wall_seconds": self.before.get("wall_seconds", 0.0) + wall,
            "cpu_seconds": self.before.get("cpu_seconds", 0.0) + _cpu_seconds() - self.cpu_started,
            "gpu_seconds": self.before.get("gpu_seconds", 0.0) + wall * self.gpus,
            "joules": joules + self.joules if self.complete and joules is not None else None,
        }

    def save(self) -> dict[str, Any]:
        """Write the sums, and return them as a card says them.

        Raises:
            CheckpointError: The disk is full or the folder cannot be written.
        """
        sums = self.sums()
        write_atomically(self.path, (json.dumps(sums, indent=2) + "\n").encode())
        return describe_cost(sums, tuple(dict.fromkeys(counter.what for counter, _ in self.counters)))


def _earlier(path: Path) -> dict[str, Any]:
    """Return the sums so far; none of a new run."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):  # no reason to end a run; what is known of the energy would be a part of it
        return {"joules": None}


def describe_cost(sums: Mapping[str, Any], counted: Sequence[str]) -> dict[str, Any]:
    """Return hours and kWh, four digits each.

    Example:
        >>> describe_cost({"wall_seconds": 3600, "cpu_seconds": 7200, "gpu_seconds": 0, "joules": None}, ())
        {'wall_hours': 1.0, 'cpu_hours': 2.0, 'energy': 'not measured'}
    """
    told: dict[str, Any] = {}
    for name in ("wall", "cpu", "gpu"):
        if sums[f"{name}_seconds"] or name != "gpu":
            told[f"{name}_hours"] = _four_digits(sums[f"{name}_seconds"] / 3600)
    if sums["joules"] is None:
        return {**told, "energy": "not measured"}
    return {**told, "energy_kwh": _four_digits(sums["joules"] / _JOULES_PER_KWH), "energy_of": ", ".join(counted)}


def _four_digits(value: float) -> float:
    return float(f"{value:.4g}")


def _cpu_seconds() -> float:
    """Return the seconds of all cores of this process and of the loader processes that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
