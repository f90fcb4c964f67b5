"""The memory guard in real processes with a small limit: they trim, refuse, and make room for fresh ones."""

import asyncio
import base64
import json
import os
import re
import time
import urllib.request
from collections.abc import Callable
from typing import Any

import aiohttp
import psutil
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from monitoring.memory import SETTLED_S
from tests.e2e.conftest import Installation
from tests.e2e.test_serve import wait_until

TEXT_BYTES = 1_000_000
CELLS = 400
LARGE_PROMPT = {"name": "large", "type": "text", "template": "{{ n }} {{ q * 1000000 }}"}
SLOW = {"name": "slow", "provider": "simulated", "settings": {"latency_ms": 4_000, "output": "echo"}}
BRIEF = SLOW | {"settings": {"latency_ms": 7_000, "output": "a"}}


def scrape(server: Installation) -> str:
    with urllib.request.urlopen(f"{server.url}/metrics", timeout=30) as answer:
        return answer.read().decode()


def metric(server: Installation, name: str) -> float:
    """The sum over all processes."""
    return sum(map(float, re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", scrape(server), re.MULTILINE)))


def text() -> str:
    """It does not get smaller by compression."""
    return base64.b64encode(os.urandom(TEXT_BYTES * 3 // 4)).decode()


async def ask_all(server: Installation, questions: list[dict[str, Any]]) -> list[int]:
    """All at once; the status of each answer."""

    async def ask(session: aiohttp.ClientSession, question: dict[str, Any]) -> int:
        async with session.post("/api/v1/completions", json={"model": "slow"} | question) as answer:
            await answer.read()
            return answer.status

    headers = {"Authorization": f"Bearer {server.secret}"}
    unbounded = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(server.url, headers=headers, connector=unbounded) as session:
        return await asyncio.gather(*(ask(session, question) for question in questions))


def websocket(server: Installation) -> ClientConnection:
    headers = {"Authorization": f"Bearer {server.secret}"}
    return connect(f"ws://127.0.0.1:{server.port}/ws/v1/", additional_headers=headers)


def is_refused(server: Installation) -> bool:
    try:
        with websocket(server):
            return False
    except InvalidStatus as refusal:
        return refusal.response.status_code == 503


async def while_asking(
    server: Installation, questions: list[dict[str, Any]], look: Callable[[], Any]
) -> tuple[list[int], Any]:
    asking = asyncio.create_task(ask_all(server, questions))
    seen = await asyncio.to_thread(look)
    return await asking, seen


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, install: Any) -> Any:
    """An installation whose processes have so many MiB."""

    def start(limit_mib: int, *arguments: str) -> Any:
        monkeypatch.setenv("AUTOFORGE_MEMORY_LIMIT_MB", str(limit_mib))
        monkeypatch.setenv("AUTOFORGE_LLM_CACHE_MAX_MB", "1000")
        return install(*arguments)

    return start


def test_above_the_soft_limit_caches_are_trimmed_and_websockets_refused(small):
    with small(256, "run_server") as server:
        assert server.request("POST", "/api/v1/models", SLOW)[0] == 201
        assert not is_refused(server)
        look = lambda: wait_until(lambda: is_refused(server))  # noqa: E731
        questions = [{"messages": [{"role": "user", "content": text()}]} for _ in range(60)]
        statuses, _ = asyncio.run(while_asking(server, questions, look))
        assert set(statuses) == {200}
        # Their answers have filled the cache, and are given up.
        wait_until(lambda: not is_refused(server), timeout_s=60)
        assert metric(server, "autoforge_memory_trimmed_bytes_total") > 20 * TEXT_BYTES
        # Nobody would start it again: it stays.
        assert server.process.poll() is None and metric(server, "autoforge_memory_restarts_total") == 0


@pytest.mark.timeout(300)
def test_at_the_limit_processes_make_room_for_fresh_ones_and_nothing_is_lost(small):
    with small(250, "serve", "--web", "1", "--workers", "1") as server:
        prepare(server)
        (web,), (worker,) = server.processes("process web"), server.processes("process worker")
        wait_until_settled(server)
        run = server.request("POST", "/api/v1/runs", new_run(server))[1]
        finished = server.wait_for_run(run["id"], timeout_s=90)
        assert (finished["state"], finished["done"], finished["errors"]) == ("finished", CELLS, 0)
        wait_until(lambda: is_replaced(server, worker, "process worker"))
        questions = [{"prompt": "large", "vars": {"q": "b", "n": number}} for number in range(CELLS // 2)]
        with websocket(server) as socket:
            look = lambda: read_to_end(socket)  # noqa: E731
            statuses, end = asyncio.run(while_asking(server, questions, look))
        assert set(statuses) == {200}
        assert end[0] == 1012 and end[1]["retry_after_ms"] > 0
        wait_until(lambda: is_replaced(server, web, "process web"))
        assert metric(server, "autoforge_memory_restarts_total") >= 2


def prepare(server: Installation) -> None:
    """A slow model, and a prompt that makes a large question of a small one."""
    assert server.request("POST", "/api/v1/models", BRIEF)[0] == 201
    assert server.request("POST", "/api/v1/prompts", LARGE_PROMPT)[0] == 201


def wait_until_settled(server: Installation) -> None:
    """A process is replaced only when it was small once."""
    level = "autoforge_memory_guard_level"
    for kind in ("web", "worker"):
        start = f'{level}{{kind="{kind}"'
        wait_until(lambda start=start: start in scrape(server), timeout_s=60)
    seen = time.monotonic()
    wait_until(lambda: time.monotonic() > seen + SETTLED_S + 2)


def is_replaced(server: Installation, old: psutil.Process, words: str) -> bool:
    return not old.is_running() and len(server.processes(words)) == 1


def read_to_end(socket: ClientConnection) -> tuple[int, dict[str, Any]]:
    """The code that it was closed with, and the last frame before."""
    last: dict[str, Any] = {}
    try:
        while True:
            last = json.loads(socket.recv(timeout=60))
    except ConnectionClosed as closed:
        assert closed.rcvd is not None
        return closed.rcvd.code, last


def new_run(server: Installation) -> dict[str, Any]:
    """Cells with large questions, half of them at once."""
    assert server.request("POST", "/api/v1/datasets", {"name": "large"})[0] == 201
    cases = [{"vars": {"q": "a", "n": number}} for number in range(CELLS)]
    assert server.request("POST", "/api/v1/datasets/large/cases", cases)[0] == 201
    return {
        "prompts": [{"name": "large"}],
        "models": ["slow"],
        "dataset": "large",
        "scorers": [{"type": "contains", "value": "a"}],
        "concurrency": CELLS // 2,
    }
