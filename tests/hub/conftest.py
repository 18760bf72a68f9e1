import socket

import pytest


@pytest.fixture(autouse=True)
def _at_home(home):
    """Keep every test of this folder in a home of its own."""


@pytest.fixture
def closed_port():
    """A port on which nobody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture
def no_network(monkeypatch):
    """Call it, and from then on any connection of this process is an error."""

    def refuse(*_):
        raise AssertionError("a connection was opened")

    return lambda: monkeypatch.setattr(socket.socket, "connect", refuse)
