"""A web process of its own for tests: the real application, and one more route that makes events happen.

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

RunEvents = list[runs.RunProgressed | runs.ResultRecorded | runs.CellTokens | runs.RunEnded]
PromptEvents = list[prompts.VersionCreated | prompts.LabelMoved | prompts.PromptDeleted]


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "http" and scope["path"].startswith("/emit/"):
        await _emit(scope["path"], await _body(receive))
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body"})
    else:
        await asgi.application(scope, receive, send)


async def _emit(path: str, body: bytes) -> None:
    """From a thread, as services and executors do."""
    if path == "/emit/runs":
        await asyncio.to_thread(_each, runs.emit, msgspec.json.decode(body, type=RunEvents))
    else:
        await asyncio.to_thread(_each, prompts.emit, msgspec.json.decode(body, type=PromptEvents))


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
    listener = socket.socket(fileno=int(sys.argv[2]))
    if sys.argv[1] == "uvicorn":
        processes.run_uvicorn(listener=listener)
    else:
        processes.run_daphne(listener)
