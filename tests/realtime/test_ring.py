"""Many sockets in one system call: each has every byte once and in order, whatever its reader does."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from django.test import override_settings

from realtime.ring import SLOTS, Ring, open_ring
from tests.realtime.clients import WebProcess
from tests.realtime.test_subscriptions import emit, tokens

pytestmark = pytest.mark.skipif(open_ring() is None, reason="this system has no io_uring, or forbids it")
# Fewer than a server of these tests lets in, more than anything else does meanwhile.
CLIENTS = 10
Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pairs() -> Iterator[list[Pair]]:
    """As many connected sockets as a call may have, ours first; ours never wait."""
    made = [socket.socketpair() for _ in range(SLOTS)]
    for ours, _ in made:
        ours.setblocking(False)
    yield made
    for ours, theirs in made:
        ours.close()
        theirs.close()


@pytest.fixture
def ring() -> Ring:
    return Ring()


def files(pairs: list[Pair]) -> list[int]:
    return [ours.fileno() for ours, _ in pairs]


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def read(theirs: socket.socket) -> bytes:
    """Everything that has come."""
    data = b""
    while True:
        try:
            more = theirs.recv(1 << 20, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return data
        data += more


def test_everybody_gets_everything_however_many_there_are(ring: Ring, pairs: list[Pair]) -> None:
    # Counts that come nowhere near a multiple of the slots: the ring turns within a call.
    counts = [SLOTS, 3, SLOTS - 1, 0, 1, 200, 200, 200, SLOTS]
    sent = [b""] * SLOTS
    for number, count in enumerate(counts):
        data = f"event {number} ".encode() * (number + 1)
        assert ring.send(files(pairs[:count]), data) == []
        for place in range(count):
            sent[place] += data
    assert [read(theirs) for _, theirs in pairs] == sent


def test_it_says_who_did_not_take_all(ring: Ring, pairs: list[Pair]) -> None:
    data = os.urandom(1_000_000)
    full, gone, closed = 2, 5, 9
    pairs[full][0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    some = pairs[:12]
    names = files(some)
    pairs[gone][1].close()
    names[closed] = -1
    for ours, _ in some[:full]:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_000_000)
    taken = dict(ring.send(names, data))
    assert taken[gone] == taken[closed] == 0
    for place, (_, theirs) in enumerate(some):
        if place not in (gone, closed):
            got = read(theirs)
            assert got == data[: taken.get(place, len(data))]
    assert 0 < taken[full] < len(data)
    # Nothing of it is left in the ring.
    assert ring.send(files(pairs[100:110]), b"next") == []
    assert [read(theirs) for _, theirs in pairs[100:110]] == [b"next"] * 10


def test_who_takes_nothing_is_not_waited_for(ring: Ring, pairs: list[Pair]) -> None:
    (ours, _), (other, reads) = pairs[:2]
    for size in (10_000, 1):
        while not ring.send([ours.fileno()], b"x" * size):
            pass
    assert ring.send([ours.fileno(), other.fileno()], b"y") == [(0, 0)]
    assert read(reads) == b"y"


def test_a_ring_that_fails_says_that_nobody_got_anything(ring: Ring, pairs: list[Pair]) -> None:
    os.close(ring._file)
    os.dup2(os.open(os.devnull, os.O_RDONLY), ring._file)  # is closed again with the ring
    assert ring.send(files(pairs[:3]), b"lost") == [(0, 0), (1, 0), (2, 0)]
    assert ring.is_broken
    assert [read(theirs) for _, theirs in pairs[:3]] == [b""] * 3


def test_rings_free_their_files() -> None:
    before = open_files()
    for _ in range(20):
        Ring()
    assert open_files() <= before


def test_an_operator_can_do_without() -> None:
    with override_settings(WS_IO_URING=False):
        assert open_ring() is None


async def test_events_go_through_it_under_each_server(server: WebProcess, world: dict[str, Any]) -> None:
    topic = f"runs.{world['run']}"
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(server.connect()) for _ in range(CLIENTS)]
        for client in clients:
            await client.subscribe(topic)
        before = submitted(server.process.pid)
        await emit(server, tokens(world, "hello"))
        for client in clients:
            assert (await client.expect("event"))["data"]["text"] == "hello"
        after = submitted(server.process.pid)
        assert max(after[ring] - before[ring] for ring in before) >= CLIENTS


def submitted(pid: int) -> dict[str, int]:
    """How much each ring of that process has taken so far, by the kernel's own account.

    uvloop may have rings, too, which take something when a connection comes or goes.
    """
    found = {}
    for file in Path(f"/proc/{pid}/fdinfo").iterdir():
        with suppress(OSError):  # it has just been closed
            told = dict(line.split(":", 1) for line in file.read_text().splitlines() if ":" in line)
            if "SqTail" in told:
                found[file.name] = int(told["SqTail"], 0)
    return found


NO_FILE_LEFT = """
import django, os, resource
django.setup()
from realtime.ring import open_ring
resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) - 1,) * 2)
print(open_ring())
"""


def test_a_system_that_refuses_is_no_error() -> None:
    environment = os.environ | {"DJANGO_SETTINGS_MODULE": "autoforge.settings"}
    told = subprocess.run(
        [sys.executable, "-c", NO_FILE_LEFT], env=environment, capture_output=True, text=True, check=True
    )
    assert told.stdout.strip() == "None"
