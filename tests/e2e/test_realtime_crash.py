"""Redis restarted and a web process killed in the middle of a run: who follows it ends up with the truth."""

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from tests.e2e.conftest import Installation

CLIENTS = 50
PATIENCE_S = 90
MODEL = {"name": "steady", "provider": "simulated", "settings": {"latency_ms": 400, "output": "expected"}}
NEW_RUN = {
    "prompts": [{"name": "support/classify", "version": 2}],
    "models": ["steady"],
    "dataset": "support",
    "scorers": [{"type": "icontains", "value": "praise"}],
    "concurrency": 20,
    "repeats": 8,
    "use_cache": False,
}
COUNTERS = ("state", "total", "done", "passed", "failed", "errors")


@dataclass
class Follower:
    """A client that comes back until the run has ended; `seen` is what it knows of the run."""

    installation: Installation
    run_id: str
    seen: dict[str, Any] = field(default_factory=dict)
    connections: int = 0
    snapshots: int = 0

    async def follow(self) -> None:
        while not self.has_ended:
            try:
                await self._connected()
            except (OSError, WebSocketException, TimeoutError):
                await asyncio.sleep(0.2)

    @property
    def has_ended(self) -> bool:
        return self.seen.get("state") not in (None, "queued", "running")

    async def _connected(self) -> None:
        headers = {"Authorization": f"Bearer {self.installation.secret}"}
        url = f"ws://127.0.0.1:{self.installation.port}/ws/v1/"
        async with connect(url, additional_headers=headers, compression=None) as socket:
            self.connections += 1
            await socket.send(json.dumps({"type": "subscribe", "topic": f"runs.{self.run_id}"}))
            async for frame in socket:
                await self._take(json.loads(frame), socket)
                if self.has_ended:
                    return

    async def _take(self, message: dict[str, Any], socket: Any) -> None:
        """A snapshot replaces everything, `progress` holds absolute counters, a refusal means: ask again."""
        if message["type"] == "error":
            assert message["code"] == "unavailable", message
            await asyncio.sleep(0.2)
            await socket.send(json.dumps({"type": "subscribe", "topic": f"runs.{self.run_id}"}))
        elif message["type"] == "snapshot":
            self.snapshots += 1
            self.seen = {name: message["data"][name] for name in COUNTERS}
        elif message.get("event") == "progress":
            self.seen = {name: message["data"][name] for name in COUNTERS}


async def until(is_true: Any) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not is_true():  # noqa: ASYNC110  what is waited for sets no event
            await asyncio.sleep(0.05)


async def test_all_followers_end_with_the_true_state(install) -> None:
    with install("serve") as installation:
        status, _ = await asyncio.to_thread(installation.request, "POST", "/api/v1/models", MODEL)
        assert status == 201
        status, run = await asyncio.to_thread(installation.request, "POST", "/api/v1/runs", NEW_RUN)
        assert status == 201
        followers = [Follower(installation, run["id"]) for _ in range(CLIENTS)]
        following = asyncio.gather(*(follower.follow() for follower in followers))
        await until(lambda: all(follower.seen.get("done", 0) > 0 for follower in followers))

        (redis,) = installation.processes("valkey-server")
        redis.kill()
        await until(lambda: all(follower.snapshots > 1 for follower in followers))
        done = followers[0].seen["done"]
        # The kernel may have given all clients to one of the two.
        max(installation.processes("process web"), key=lambda web: len(web.net_connections("tcp"))).kill()
        await until(lambda: followers[0].seen["done"] > done)

        await asyncio.wait_for(following, PATIENCE_S)
        ended = await asyncio.to_thread(installation.wait_for_run, run["id"])
        assert (ended["state"], ended["done"], ended["errors"]) == ("finished", run["total"], 0)
        truth = {name: ended[name] for name in COUNTERS}
        assert [follower.seen for follower in followers] == [truth] * CLIENTS
        # The crash was felt.
        assert sum(follower.connections > 1 for follower in followers) >= CLIENTS / 2
        assert len(installation.processes("process web")) == 2
