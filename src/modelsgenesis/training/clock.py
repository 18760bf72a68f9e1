"""How fast a loop is and what it waits for."""

import time


class Clock:
    """Samples a second and the share of time spent waiting for data, over about the last ten steps.

    Args:
        batch_size: Samples a step.

    Example:
        clock = Clock(8)
        with clock.waiting():
            batch = next(loader)
        samples_per_second, waiting = clock.tick()
    """

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self.last = self._start = time.perf_counter()
        self.step_seconds = self.wait_seconds = self._waited = 0.0

    def waiting(self) -> "Clock":
        """Return the context in which data is waited for."""
        return self

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._waited = time.perf_counter() - self._start

    def tick(self) -> tuple[float, float]:
        """End a step and return samples a second and the share of waiting, 0 to 1."""
        now = time.perf_counter()
        spent, self.last = now - self.last, now
        # Exponential averages over about ten steps; the first step sets them.
        weight = 0.1 if self.step_seconds else 1.0
        self.step_seconds += weight * (spent - self.step_seconds)
        self.wait_seconds += weight * (self._waited - self.wait_seconds)
        return self.batch_size / self.step_seconds, min(self.wait_seconds / self.step_seconds, 1.0)

    def restart(self) -> None:
        """Leave out what came since the last step, such as a validation."""
        self.last = time.perf_counter()
