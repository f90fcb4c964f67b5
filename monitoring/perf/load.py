"""Two ways to ask: at a rate that was promised, whatever comes back; or as fast as answers come."""

import asyncio
import gc
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter, process_time
from typing import Any, NamedTuple

from monitoring.perf.client import Client
from monitoring.perf.recording import Recorder, new_histogram, record

# The loop's timers count in milliseconds: what falls due within one tick is sent together.
_TICK_S = 0.001
_DRAIN_S = 10.0
UNANSWERED = "unanswered"


class Prepared(NamedTuple):
    """A request ready to be sent; an answer without the bytes `expect` is an error."""

    kind: str
    data: bytes
    expect: bytes = b""
    is_stream: bool = False


@dataclass
class Measurement:
    """What a load did, and how well its generator kept up."""

    seconds: float
    recorder: Recorder
    lateness: Any = field(default_factory=new_histogram)  # of sending, against the schedule
    first: Any = field(default_factory=new_histogram)  # from when a stream was due to its first piece
    sent: int = 0
    cpu_s: float = 0.0
    last_answer_s: float = 0.0  # after the start
    overloaded: bool = False
    open_requests: dict[int, tuple[str, float]] = field(default_factory=dict)

    @property
    def per_s(self) -> float:
        """Requests answered without an error, per second until the last answer."""
        return (self.recorder.count - self.recorder.error_count) / self.answering_s

    @property
    def answered(self) -> int:
        """Requests that got an answer, of whatever kind."""
        return self.recorder.count - sum(errors[UNANSWERED] for errors in self.recorder.errors.values())

    @property
    def answering_s(self) -> float:
        """How long answers came: longer than the load when the server could not follow."""
        return max(self.seconds, self.last_answer_s)

    @property
    def cpu_us(self) -> float:
        """The generator's own CPU time a request."""
        return self.cpu_s / max(self.sent, 1) * 1e6


async def open_loop(
    client: Client,
    requests: Iterator[Prepared],
    *,
    rate: float,
    seconds: float,
    max_open: int | None = None,
) -> Measurement:
    """Send `rate` requests a second on a fixed schedule, however slow the answers are.

    A latency runs from the instant a request was due, not from when it could be sent, so a server that
    stalls pays for every request it held up (no coordinated omission). With `max_open` the load ends
    as overloaded once that many requests are unanswered.
    """
    measurement = Measurement(seconds, Recorder(seconds))
    measuring = _Measuring(client, measurement)
    total = int(rate * seconds)
    while measurement.sent < total:
        due = measurement.sent / rate
        if (ahead := due - measuring.now()) > 0:
            await asyncio.sleep(max(ahead, _TICK_S))
        elif max_open is not None and len(measurement.open_requests) >= max_open:
            measurement.overloaded, measurement.seconds = True, measuring.now()
            break
        else:
            record(measurement.lateness, -ahead)
            measuring.send(next(requests), due)
            if measurement.sent % 64 == 0:
                await asyncio.sleep(0)  # when late, answers must still be read
    await measuring.finish()
    return measurement


async def closed_loop(
    client: Client,
    requests: Iterator[Prepared],
    *,
    users: int,
    seconds: float = 3600.0,
    count: int | None = None,
) -> Measurement:
    """`users` ask again as soon as they were answered, for `seconds` or `count` requests.

    Measures throughput; latencies are service times and say nothing about a promised rate.
    """
    measurement = Measurement(seconds, Recorder(seconds))
    measuring = _Measuring(client, measurement)
    ended = asyncio.Event()

    def ask() -> None:
        now = measuring.now()
        if now < seconds and (count is None or measurement.sent < count):
            measuring.send(next(requests), now, ask)
        else:
            ended.set()

    for _ in range(users):
        ask()
    await ended.wait()
    measurement.seconds = min(seconds, measuring.now())
    await measuring.finish()
    return measurement


class _Measuring:
    """Sends, and puts what comes back where it belongs."""

    def __init__(self, client: Client, measurement: Measurement) -> None:
        self._client, self._measurement = client, measurement
        self._idle = asyncio.Event()
        # What was made before the load is no garbage: the collector need not look at it again.
        gc.collect()
        gc.freeze()
        self._cpu = process_time()
        self._start = perf_counter()

    def now(self) -> float:
        return perf_counter() - self._start

    def send(self, request: Prepared, due: float, then: Any = None) -> None:
        number = self._measurement.sent
        self._measurement.sent += 1
        self._measurement.open_requests[number] = (request.kind, due)
        self._client.send(request.data, partial(self._done, number, request, then))

    def _done(self, number: int, request: Prepared, then: Any, status: int, body: bytes) -> None:
        measurement = self._measurement
        entry = measurement.open_requests.pop(number, None)
        if entry is None:  # it was given up
            return
        kind, due = entry
        error = "" if 200 <= status < 400 and request.expect in body else _error(status, body)
        measurement.recorder.add(kind, due, self.now() - due, error)
        if request.is_stream and not error:
            record(measurement.first, self._client.first_at - self._start - due)
        if not measurement.open_requests:
            self._idle.set()
        if then:
            then()

    async def finish(self) -> None:
        """Wait for what is unanswered; what stays so is an error that took until now."""
        try:
            async with asyncio.timeout(_DRAIN_S):
                while self._measurement.open_requests:
                    self._idle.clear()
                    await self._idle.wait()
        except TimeoutError:
            while self._measurement.open_requests:
                _, (kind, due) = self._measurement.open_requests.popitem()
                self._measurement.recorder.add(kind, due, self.now() - due, UNANSWERED)
            self._client.give_up()
        self._measurement.last_answer_s = self.now()
        self._measurement.cpu_s = process_time() - self._cpu
        gc.unfreeze()


def _error(status: int, body: bytes) -> str:
    if status == 0:
        return body.decode()
    return str(status) if status >= 400 else "unexpected"
