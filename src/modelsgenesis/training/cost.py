"""What a run cost: time, hours of processors, and energy where the machine tells it."""

import ctypes
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from modelsgenesis.errors import DataError
from modelsgenesis.files import parsing, read_json, write_json
from modelsgenesis.hardware import Hardware
from modelsgenesis.reporting import Reporter

COST_NAME = "cost.json"
_BETWEEN_READINGS = 60.0  # seconds; a counter of a CPU package starts anew after some minutes of full power
_JOULES_PER_KWH = 3.6e6

Counter = Callable[[], float]
"""Returns joules since any fixed moment; raises `OSError` or `ValueError` when it cannot be read any more."""


def find_counters(hardware: Hardware, powercap: Path = Path("/sys/class/powercap")) -> dict[str, list[Counter]]:
    """Return every counter of energy that this machine lets us read for a run, by what it counts; often only root may.

    Args:
        hardware: Where the run computes.
        powercap: Where Linux keeps the counters of CPU packages, which count for all programs on them.
    """
    zones = [zone for zone in sorted(powercap.glob("*-rapl:*")) if zone.name.count(":") == 1]  # not their parts
    found = {"CPU packages (RAPL)": [_rapl(zone) for zone in zones if os.access(zone / "energy_uj", os.R_OK)]}
    if hardware.device.type == "cuda":
        found["GPU (NVML)"] = _nvml(str(torch.cuda.get_device_properties(hardware.device).uuid))
    return {what: counters for what, counters in found.items() if counters}


def _rapl(zone: Path) -> Counter:
    last = wrapped = 0

    def joules() -> float:
        nonlocal last, wrapped
        now = int((zone / "energy_uj").read_text())
        if now < last:
            wrapped += int((zone / "max_energy_range_uj").read_text())
        last = now
        return (wrapped + now) / 1e6

    return joules


def _nvml(identifier: str) -> list[Counter]:
    """Return the counter of the device with this UUID, from the driver's own library; none where it has none."""
    handle, millijoules = ctypes.c_void_p(), ctypes.c_ulonglong()
    name = f"GPU-{identifier.removeprefix('GPU-')}".encode()
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
        if library.nvmlInit_v2() or library.nvmlDeviceGetHandleByUUID(name, ctypes.byref(handle)):
            return []
    except (OSError, AttributeError):
        return []

    def joules() -> float:
        if library.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(millijoules)):
            raise OSError("NVML tells no energy")
        return millijoules.value / 1e3

    return [joules]


class Meter(Reporter):
    """Adds up what a run costs, over every time that it was resumed; steps that were lost count too.

    Args:
        path: JSON file that keeps the sums between resumes.
        gpus: Devices in use, over all processes.
        counters: Counters of energy, by what they count.
    """

    def __init__(self, path: Path, *, gpus: int = 0, counters: Mapping[str, list[Counter]] | None = None) -> None:
        self.path, self.gpus, self.counters = path, gpus, counters or {}
        self.before = _earlier(path)
        self.started, self.cpu_started = time.monotonic(), _cpu_seconds()
        self.complete, self.joules = bool(self.counters), 0.0  # a part of the energy would be no figure at all
        self.energy_started = self._energy()

    def step(self, step: int, loss: float, samples_per_second: float, waiting: float) -> None:
        """Read the energy now and then."""
        if time.monotonic() - self.read_at > _BETWEEN_READINGS:
            self.joules = self._energy() - self.energy_started

    def _energy(self) -> float:
        self.read_at = time.monotonic()
        try:
            return sum(counter() for counters in self.counters.values() for counter in counters)
        except (OSError, ValueError):
            self.complete = False
            return 0.0

    def save(self) -> dict[str, Any]:
        """Write the sums over the whole run, and return them as a card says them.

        Raises:
            CheckpointError: The disk is full or the folder cannot be written.
        """
        wall, before = time.monotonic() - self.started, self.before
        self.joules = self._energy() - self.energy_started
        sums: dict[str, Any] = {
            "wall_seconds": before["wall_seconds"] + wall,
            "cpu_seconds": before["cpu_seconds"] + _cpu_seconds() - self.cpu_started,
            "gpu_seconds": before["gpu_seconds"] + wall * self.gpus,
            "joules": before["joules"] + self.joules if self.complete and before["joules"] is not None else None,
        }
        write_json(self.path, sums)
        return describe_cost(sums, list(self.counters))


def _earlier(path: Path) -> dict[str, Any]:
    """Return the sums so far; of a file that is damaged none, and its energy is not known any more."""
    times = ("wall_seconds", "cpu_seconds", "gpu_seconds")
    try:
        with parsing(path, DataError):
            values = read_json(path, DataError)
            joules = values["joules"]
            return {name: float(values[name]) for name in times} | {"joules": joules and float(joules)}
    except DataError:
        return dict.fromkeys(times, 0.0) | {"joules": None if path.exists() else 0.0}


def describe_cost(sums: Mapping[str, Any], counted: list[str]) -> dict[str, Any]:
    """Return hours and kWh, four digits each.

    Example:
        >>> describe_cost({"wall_seconds": 3600, "cpu_seconds": 7200, "gpu_seconds": 0, "joules": None}, [])
        {'wall_hours': 1.0, 'cpu_hours': 2.0, 'energy': 'not measured'}
    """
    hours = {f"{name}_hours": sums[f"{name}_seconds"] / 3600 for name in ("wall", "cpu", "gpu")}
    told: dict[str, Any] = {name: float(f"{value:.4g}") for name, value in hours.items() if value or name[0] != "g"}
    if sums["joules"] is None:
        return {**told, "energy": "not measured"}
    return {**told, "energy_kwh": float(f"{sums['joules'] / _JOULES_PER_KWH:.4g}"), "energy_of": ", ".join(counted)}


def _cpu_seconds() -> float:
    """Return the seconds of all cores of this process and of the loader processes that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
