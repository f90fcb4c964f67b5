"""A web process of its own for tests: the real application, and routes that make events happen.

`python -m tests.realtime.serving uvicorn|daphne FD` serves the listening socket FD.
"""

import asyncio
import os
import socket
import sys
from typing import Any

import msgspec

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "autoforge.settings")

from autoforge import asgi, processes
from evaluations import events as runs
from prompts import events as prompts
from realtime import topics
from realtime.threads import in_thread
from tests.realtime import lending

RunEvents = list[runs.RunProgressed | runs.ResultRecorded | runs.CellTokens | runs.RunEnded]
PromptEvents = list[prompts.VersionCreated | prompts.LabelMoved | prompts.PromptDeleted]


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "http" and scope["path"].startswith(("/emit/", "/rights/")):
        happen = _emit if scope["path"].startswith("/emit/") else _rights
        answer = await happen(scope["path"], await _body(receive))
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": msgspec.json.encode(answer)})
    else:
        await asgi.application(scope, receive, send)


async def _emit(path: str, body: bytes) -> None:
    """From a thread, as services and executors do."""
    if path == "/emit/runs":
        await asyncio.to_thread(_each, runs.emit, msgspec.json.decode(body, type=RunEvents))
    else:
        await asyncio.to_thread(_each, prompts.emit, msgspec.json.decode(body, type=PromptEvents))


async def _rights(path: str, body: bytes) -> dict[str, str] | None:
    """Lend some, or take back those that are given in the body."""
    if path == "/rights/lend":
        return await in_thread(lending.lend, body.decode())
    borrower, lent = msgspec.json.decode(body, type=tuple[str, dict[str, str]])
    await in_thread(lending.take_back, borrower, lent)
    return None


def _each(emit: Any, events: list[Any]) -> None:
    for event in events:
        emit(event)


async def _body(receive: Any) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    return body


# What the composition root does for `metrics`.
topics.register_source("load", lambda: {"load": 0.5}, interval_s=0.05)

if __name__ == "__main__":
    processes.APPLICATION = "tests.realtime.serving:application"
    if pings := os.environ.get("TEST_PINGS"):
        processes.PING_INTERVAL_S, processes.PING_TIMEOUT_S = map(int, pings.split(","))
    listener = socket.socket(fileno=int(sys.argv[2]))
    if sys.argv[1] == "uvicorn":
        processes.run_uvicorn(listener=listener)
    else:
        processes.run_daphne(listener)
