"""A process full of WebSocket clients: `python -m monitoring.perf.crowd`, driven over its standard input."""

import asyncio
import resource
import socket
import sys
from array import array
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from time import monotonic, process_time
from typing import Any

import msgspec
import uvloop

from monitoring.perf.follower import Follower, handshake
from monitoring.perf.telling import Completions

_OPEN_TIMEOUT_S = 30.0
_SMALL_BUFFER = 4096


class Plan(msgspec.Struct, kw_only=True):
    """What a crowd does. `sources` are local addresses to connect from, one after the other.

    The last `busy` clients also follow `busy_topic`, and the last `not_reading` of those stop reading.
    """

    host: str
    port: int
    key: str
    topic: str
    prompt: str
    count: int
    per_s: float
    sources: list[str] = []
    busy: int = 0
    not_reading: int = 0
    busy_topic: str = ""
    completing: int = 0
    model: str = ""


class Connected(msgspec.Struct, kw_only=True):
    """How connecting went; `handshakes_ms` until accepted, of those that were."""

    seconds: float
    handshakes_ms: list[float]
    failures: dict[str, int]


class Heard(msgspec.Struct, kw_only=True):
    """An event: how many got it, and when (monotonic clock, seconds)."""

    number: int
    count: int
    first: float
    p50: float
    p99: float
    last: float


class Told(msgspec.Struct, kw_only=True):
    """What the crowd has seen since it connected."""

    open: int
    cpu_s: float
    events: list[Heard]
    gaps: int
    snapshots: int
    closes: dict[str, int]
    first_token_ms: list[float]
    completed_ms: list[float]
    failures: dict[str, int]


class Said(msgspec.Struct):
    """A frame of the server."""

    type: str
    topic: str = ""
    seq: int = 0
    event: str = ""
    data: msgspec.Raw = msgspec.Raw(b"null")
    id: str = ""
    code: Any = ""


class Moved(msgspec.Struct):
    """Data of the event `label_moved`."""

    prompt: str = ""
    label: str = ""
    version: int | None = None


LABELS = 50


def marker(number: int) -> tuple[str, int]:
    """Label and version that stand for event `number`: a prompt has at most 50 labels."""
    return f"e{number % LABELS}", number // LABELS + 1


def number_of(moved: Moved) -> int:
    return (moved.version or 0) * LABELS - LABELS + int(moved.label[1:])


@dataclass(slots=True)
class _Event:
    number: int
    arrivals: "array[float]" = field(default_factory=lambda: array("d"))

    def heard(self) -> Heard:
        at = sorted(self.arrivals)
        middle, late = len(at) // 2, min(int(len(at) * 0.99), len(at) - 1)
        return Heard(
            number=self.number, count=len(at), first=at[0], p50=at[middle], p99=at[late], last=at[-1]
        )


@dataclass(slots=True, frozen=True)
class _Known:
    seq: int
    event: _Event | None


class _Deaf:
    """Listens for those who stopped reading: what comes to them later is no event that was late."""

    known: Mapping[bytes, Any] = {}

    def __init__(self, crowd: "Crowd") -> None:
        self.closed = crowd.closed

    def connected(self, follower: Follower) -> None:
        pass

    def refused(self, follower: Follower, status: str) -> None:
        pass

    def hear(self, follower: Follower, known: Any) -> None:
        pass

    def read(self, follower: Follower, frame: bytes, payload: bytes) -> None:
        pass


class Crowd:
    """All clients of this process."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.known: dict[bytes, _Known] = {}
        self.events: dict[int, _Event] = {}
        self.completions = Completions(plan.model)
        self.failures: Counter[str] = Counter()
        self.closes: Counter[str] = Counter()
        self.gaps = self.snapshots = 0
        self._followers: dict[Follower, asyncio.Future[None]] = {}
        self._hello = handshake(f"{plan.host}:{plan.port}", plan.key)
        self._subscribe = msgspec.json.encode({"type": "subscribe", "topic": plan.topic})
        self._started: dict[Follower, float] = {}
        self._handshakes_ms: list[float] = []
        self._deaf: set[Follower] = set()
        self._cpu_s = 0.0

    async def connect(self) -> Connected:
        """Open all connections at the planned rate; returns when each follows its topic or has failed."""
        begun = monotonic()
        opening = set()
        for number in range(self.plan.count):
            if (ahead := begun + number / self.plan.per_s - monotonic()) > 0:
                await asyncio.sleep(ahead)
            opening.add(asyncio.create_task(self._open(number)))
        await asyncio.gather(*opening)
        return Connected(
            seconds=monotonic() - begun,
            handshakes_ms=[round(each, 2) for each in self._handshakes_ms],
            failures=dict(self.failures),
        )

    def start(self) -> None:
        """Let the planned ones ask for completions, and the planned others stop reading."""
        self._cpu_s = process_time()
        followers = list(self._followers)
        for follower in followers[: self.plan.completing]:
            self.completions.start(follower)
        for follower in followers[len(followers) - self.plan.busy :]:
            follower.say(msgspec.json.encode({"type": "subscribe", "topic": self.plan.busy_topic}))
        for follower in followers[len(followers) - self.plan.not_reading :]:
            follower.transport.pause_reading()
            follower.listener = _Deaf(self)
            self._deaf.add(follower)

    def read_again(self) -> None:
        """Let all read."""
        for follower in self._deaf:
            if follower.transport is not None:
                follower.transport.resume_reading()

    def told(self) -> Told:
        self.completions.stop()
        open_count = sum(1 for follower in self._followers if follower.transport is not None)
        return Told(
            open=open_count,
            cpu_s=process_time() - self._cpu_s,
            events=[event.heard() for event in self.events.values()],
            gaps=self.gaps,
            snapshots=self.snapshots,
            closes=dict(self.closes),
            first_token_ms=self.completions.first_ms,
            completed_ms=self.completions.whole_ms,
            failures=dict(self.failures),
        )

    def connected(self, follower: Follower) -> None:
        self._handshakes_ms.append((monotonic() - self._started.pop(follower)) * 1000)
        follower.say(self._subscribe)

    def refused(self, follower: Follower, status: str) -> None:
        self.failures[status] += 1

    def hear(self, follower: Follower, known: _Known) -> None:
        if known.seq != follower.seq + 1:
            self.gaps += 1
        follower.seq = known.seq
        if known.event is not None:
            known.event.arrivals.append(monotonic())

    def read(self, follower: Follower, frame: bytes, payload: bytes) -> None:
        said = msgspec.json.decode(payload, type=Said)
        if said.topic == self.plan.topic and said.type == "event":
            known = self.known[frame] = _Known(said.seq, self._event_of(said))
            self.hear(follower, known)
        elif said.topic == self.plan.topic and said.type == "snapshot":
            self.snapshots += 1
            follower.seq = said.seq
            if not (ready := self._followers[follower]).done():
                ready.set_result(None)
        elif said.id:
            self.completions.read(follower, said.type, said.id)
        elif said.type == "error":
            self.failures[f"error {said.code}"] += 1

    def closed(self, follower: Follower, code: int) -> None:
        ready = self._followers.get(follower)
        if ready is not None and ready.done():
            self.closes[str(code)] += 1
        elif ready is not None:
            ready.set_exception(ConnectionError(str(code)))

    def _event_of(self, said: Said) -> _Event | None:
        """The same event comes from each server process with another number of its own."""
        moved = msgspec.json.decode(said.data, type=Moved) if said.event == "label_moved" else Moved()
        if moved.prompt != self.plan.prompt:
            return None
        number = number_of(moved)
        return self.events.setdefault(number, _Event(number))

    async def _open(self, number: int) -> None:
        loop = asyncio.get_running_loop()
        follower = Follower(self, self._hello)
        ready = self._followers[follower] = loop.create_future()
        self._started[follower] = monotonic()
        try:
            async with asyncio.timeout(_OPEN_TIMEOUT_S):
                sock = await self._socket(number)
                await loop.create_connection(lambda: follower, sock=sock)
                await ready
        except (OSError, TimeoutError) as error:
            self.failures[type(error).__name__] += 1
            del self._followers[follower]
            if follower.transport is not None:
                follower.transport.abort()

    async def _socket(self, number: int) -> socket.socket:
        plan = self.plan
        sock = socket.socket()
        sock.setblocking(False)
        if number >= plan.count - plan.not_reading:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL_BUFFER)
        if plan.sources:
            sock.bind((plan.sources[number % len(plan.sources)], 0))
        await asyncio.get_running_loop().sock_connect(sock, (plan.host, plan.port))
        return sock


async def _serve() -> None:
    """Answer each line of standard input, a command, with one line of JSON."""
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    crowd = Crowd(msgspec.json.decode(await lines.readline(), type=Plan))
    while command := (await lines.readline()).decode().strip():
        answer: Any = None
        match command:
            case "connect":
                answer = await crowd.connect()
            case "start":
                crowd.start()
            case "read again":
                crowd.read_again()
            case "tell":
                answer = crowd.told()
        sys.stdout.write(msgspec.json.encode(answer).decode() + "\n")
        sys.stdout.flush()


def main() -> None:
    """Serve until standard input ends."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    uvloop.run(_serve())


if __name__ == "__main__":
    main()
