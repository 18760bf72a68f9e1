import ctypes
import json

import pytest

from modelsgenesis.hardware import choose_hardware
from modelsgenesis.training.cost import (
    Meter,
    NvmlCounter,
    RaplCounter,
    describe_cost,
    find_counters,
    find_nvml,
    find_rapl,
)


def zone(folder, microjoules, name="intel-rapl:0"):
    place = folder / name
    place.mkdir(parents=True, exist_ok=True)
    (place / "energy_uj").write_text(f"{microjoules}\n")
    (place / "max_energy_range_uj").write_text("1000000000\n")
    return place


def test_adds_up_over_resumes(tmp_path):
    place = zone(tmp_path / "powercap", 0)
    path = tmp_path / "cost.json"
    first = Meter(path, gpus=2, counters=[RaplCounter(place)])
    zone(tmp_path / "powercap", 36_000_000)
    told = first.save()
    assert told["energy_kwh"] == pytest.approx(1e-5)
    assert told["energy_of"] == "CPU packages (RAPL)"
    before = json.loads(path.read_text())
    assert before["gpu_seconds"] == pytest.approx(2 * before["wall_seconds"])
    second = Meter(path, counters=[RaplCounter(place)])
    second.before["wall_seconds"] = 3600.0
    zone(tmp_path / "powercap", 72_000_000)
    told = second.save()
    assert told["energy_kwh"] == pytest.approx(2e-5)
    assert told["wall_hours"] >= 1


def test_a_counter_that_starts_anew_goes_on(tmp_path):
    counter = RaplCounter(zone(tmp_path, 900_000_000))
    assert counter.joules() == 900
    zone(tmp_path, 100_000_000)
    assert counter.joules() == 1100


def test_energy_that_is_known_in_part_is_not_told(tmp_path):
    place = zone(tmp_path / "powercap", 0)
    meter = Meter(tmp_path / "cost.json", counters=[RaplCounter(place)])
    (place / "energy_uj").unlink()
    meter.read_at = -1e9
    meter.step(1, 0.5, 1.0, 0.0)
    assert meter.save()["energy"] == "not measured"
    zone(tmp_path / "powercap", 0)
    assert Meter(tmp_path / "cost.json", counters=[RaplCounter(place)]).save()["energy"] == "not measured"
    (tmp_path / "cost.json").write_text("{")
    assert Meter(tmp_path / "cost.json", counters=[RaplCounter(place)]).save()["energy"] == "not measured"


def test_finds_the_packages_and_not_their_parts(tmp_path):
    zone(tmp_path, 5)
    zone(tmp_path, 5, "intel-rapl:1")
    zone(tmp_path, 5, "intel-rapl:0:0")
    assert [counter.zone.name for counter in find_rapl(tmp_path)] == ["intel-rapl:0", "intel-rapl:1"]
    assert find_rapl(tmp_path / "nowhere") == []
    assert isinstance(find_counters(choose_hardware("cpu")), list)


def test_reads_the_energy_of_a_gpu_from_its_driver():
    class Driver:
        def nvmlDeviceGetTotalEnergyConsumption(self, handle, place):  # noqa: N802
            ctypes.cast(place, ctypes.POINTER(ctypes.c_ulonglong))[0] = 5000
            return handle

    assert NvmlCounter(Driver(), 0).joules() == 5
    with pytest.raises(OSError, match="NVML tells no energy"):
        NvmlCounter(Driver(), 3).joules()


def test_without_a_driver_there_is_no_counter(monkeypatch):
    def missing(name):
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert find_nvml("1234") == []


def test_hours_of_devices_are_told_where_there_are_some():
    told = describe_cost({"wall_seconds": 1, "cpu_seconds": 2, "gpu_seconds": 7200, "joules": 3.6e6}, ("GPU (NVML)",))
    assert told["gpu_hours"] == 2
    assert (told["energy_kwh"], told["energy_of"]) == (1, "GPU (NVML)")
