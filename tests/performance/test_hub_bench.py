"""What one event costs the hub, and what one client costs in memory."""

import asyncio
import socket
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.test import override_settings

from autoforge.auth import Actor
from autoforge.models import Project, Role
from realtime import topics
from realtime.bus import LocalBus
from realtime.connection import Connection
from realtime.feed import Feed
from realtime.frames import Complete, decode
from realtime.ring import SLOTS, open_ring
from tests.realtime.clients import eventually

FOLLOWERS = 10_000
EVENT = b'{"results":[' + b",".join(b'{"id":%d,"state":"passed","score":1.0}' % n for n in range(50)) + b"]}"


async def send(message: dict[str, Any]) -> None:
    """A server whose client reads."""


def actor() -> Actor:
    return Actor(Project(pk=1, name="acme"), Role.EDITOR, "bench")


async def crowded_feed() -> Feed:
    topic = topics.Topic("prompts", "prompts.1", dict)
    feed = Feed(topic, LocalBus(), ring=None, forget=lambda _: None)
    one = actor()
    for _ in range(FOLLOWERS):
        feed.add(Connection(send, one))
    await eventually(lambda: len(feed.live) == FOLLOWERS)
    return feed


@pytest.fixture
def runner() -> Any:
    with override_settings(REDIS_URL=""), asyncio.Runner() as runner:
        yield runner


def test_one_event_to_ten_thousand(benchmark: Callable[..., Any], runner: asyncio.Runner) -> None:
    feed = runner.run(crowded_feed())

    async def hand_out() -> None:
        """Without the rest that a feed takes afterwards."""
        feed._pending.append(("result_recorded", EVENT))
        await feed._send_together()

    benchmark(lambda: runner.run(hand_out()))
    assert feed.seq > 0


@pytest.fixture
def pairs() -> Iterator[list[tuple[socket.socket, socket.socket]]]:
    made = [socket.socketpair() for _ in range(SLOTS)]
    yield made
    for pair in made:
        for each in pair:
            each.close()


@pytest.mark.parametrize("way", ["one call each", "one call"])
def test_one_event_into_many_sockets(
    benchmark: Any, pairs: list[tuple[socket.socket, socket.socket]], way: str
) -> None:
    """As many as one system call takes; what was sent is read between the rounds."""
    ring = open_ring()
    if ring is None:
        pytest.skip("this system has no io_uring, or forbids it")
    files = [ours.fileno() for ours, _ in pairs]

    def read() -> None:
        for _, theirs in pairs:
            theirs.recv(len(EVENT))

    def send_each() -> None:
        for ours, _ in pairs:
            ours.send(EVENT)

    def send_all() -> None:
        assert ring.send(files, EVENT) == []

    once = send_all if way == "one call" else send_each
    once()
    benchmark.pedantic(once, setup=read, rounds=200)


def test_a_message_from_a_client(benchmark: Callable[..., Any]) -> None:
    text = '{"type":"complete","id":"c1","prompt":"support/reply","model":"local","vars":{"name":"Ada"}}'
    assert isinstance(benchmark(decode, text), Complete)


def test_a_follower_takes_less_than_a_kibibyte() -> None:
    """What the application itself keeps of a client: its Connection and its places in the sets."""

    async def measure() -> float:
        one = actor()
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        connections = [Connection(send, one) for _ in range(1_000)]
        followers = set(connections)
        for connection in connections:
            connection.feeds["prompts"] = None  # type: ignore[assignment]  # any reference costs the same
        after = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        return (after - before) / len(followers)

    assert asyncio.run(measure()) < 1024
