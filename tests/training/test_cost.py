import ctypes
import json

import pytest

from modelsgenesis.hardware import choose_hardware
from modelsgenesis.training.cost import Meter, _nvml, describe_cost, find_counters

HARDWARE = choose_hardware("cpu")


def zone(folder, microjoules, name="intel-rapl:0"):
    place = folder / name
    place.mkdir(parents=True, exist_ok=True)
    (place / "energy_uj").write_text(f"{microjoules}\n")
    (place / "max_energy_range_uj").write_text("1000000000\n")
    return folder


def test_adds_up_over_resumes(tmp_path):
    counters = find_counters(HARDWARE, zone(tmp_path, 0))
    path = tmp_path / "cost.json"
    first = Meter(path, gpus=2, counters=counters)
    zone(tmp_path, 36_000_000)
    told = first.save()
    assert told["energy_kwh"] == pytest.approx(1e-5)
    assert told["energy_of"] == "CPU packages (RAPL)"
    before = json.loads(path.read_text())
    assert before["gpu_seconds"] == pytest.approx(2 * before["wall_seconds"])
    path.write_text(json.dumps({**before, "wall_seconds": 3600.0}))
    second = Meter(path, counters=counters)
    zone(tmp_path, 72_000_000)
    told = second.save()
    assert told["energy_kwh"] == pytest.approx(2e-5)
    assert told["wall_hours"] >= 1


def test_finds_the_packages_and_not_their_parts_and_a_counter_may_start_anew(tmp_path):
    for name in ("intel-rapl:0", "intel-rapl:1", "intel-rapl:0:0"):
        zone(tmp_path, 900_000_000, name)
    [counters] = find_counters(HARDWARE, tmp_path).values()
    assert [counter() for counter in counters] == [900, 900]
    zone(tmp_path, 100_000_000)
    assert [counter() for counter in counters] == [1100, 900]
    assert find_counters(HARDWARE, tmp_path / "nowhere") == {}


def test_energy_that_is_known_in_part_is_not_told(tmp_path):
    counters = find_counters(HARDWARE, zone(tmp_path, 0))
    meter = Meter(tmp_path / "cost.json", counters=counters)
    (tmp_path / "intel-rapl:0" / "energy_uj").unlink()
    meter.read_at = -1e9
    meter.step(1, 0.5, 1.0, 0.0)
    assert meter.save()["energy"] == "not measured"
    zone(tmp_path, 0)
    assert Meter(tmp_path / "cost.json", counters=counters).save()["energy"] == "not measured"
    (tmp_path / "cost.json").write_text("{")
    assert Meter(tmp_path / "cost.json", counters=counters).save()["energy"] == "not measured"


def test_reads_the_energy_of_a_gpu_from_its_driver_where_there_is_one(monkeypatch):
    class Driver:
        status = 0

        def __init__(self, _):
            self.nvmlInit_v2 = lambda: 0
            self.nvmlDeviceGetHandleByUUID = lambda *_: 0

        def nvmlDeviceGetTotalEnergyConsumption(self, _, place):  # noqa: N802
            ctypes.cast(place, ctypes.POINTER(ctypes.c_ulonglong))[0] = 5000
            return self.status

    monkeypatch.setattr(ctypes, "CDLL", Driver)
    [counter] = _nvml("1234")
    assert counter() == 5
    monkeypatch.setattr(Driver, "status", 3)
    with pytest.raises(OSError, match="NVML tells no energy"):
        counter()
    monkeypatch.delattr(ctypes, "CDLL")
    assert _nvml("1234") == []


def test_hours_of_devices_are_told_where_there_are_some():
    told = describe_cost({"wall_seconds": 1, "cpu_seconds": 2, "gpu_seconds": 7200, "joules": 3.6e6}, ["GPU (NVML)"])
    assert (told["gpu_hours"], told["energy_kwh"], told["energy_of"]) == (2, 1, "GPU (NVML)")
