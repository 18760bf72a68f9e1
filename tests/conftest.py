"""Fixtures that many tests share."""

from pathlib import Path

import pytest

SHARED = Path(__file__).parents[2] / "shared"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs the folder of real data where it is absent."""
    if SHARED.is_dir():
        return
    for item in items:
        if item.get_closest_marker("shared"):
            item.add_marker(
                pytest.mark.skip(reason="needs the folder of real data and reference outputs: ../shared")
            )


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and reference outputs; mark the test `shared`."""
    return SHARED


@pytest.fixture(scope="session")
def shared_data(shared: Path) -> Path:
    """The real scans; mark the test `shared`."""
    return shared / "data"
