"""A WebSocket client, and server processes for it to talk to."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 20


class WebSocketClient:
    """Speaks the protocol over a real connection."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    async def send(self, type: str, **fields: Any) -> None:
        await self.connection.send(json.dumps({"type": type, **fields}))

    async def next(self) -> dict[str, Any]:
        return json.loads(await asyncio.wait_for(self.connection.recv(), PATIENCE_S))

    async def expect(self, type: str) -> dict[str, Any]:
        """The next message, which must be a `type`."""
        message = await self.next()
        assert message["type"] == type, message
        return message

    async def until(self, type: str) -> list[dict[str, Any]]:
        """All messages up to the first `type`."""
        messages = [await self.next()]
        while messages[-1]["type"] != type:
            messages.append(await self.next())
        return messages

    async def subscribe(self, topic: str) -> dict[str, Any]:
        """The snapshot."""
        await self.send("subscribe", topic=topic)
        return await self.expect("snapshot")

    async def close_code(self) -> int:
        """The code with which the server closes, after reading all it sent."""
        with suppress(ConnectionClosed):
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    await self.connection.recv()
        return self.connection.close_code or 0


@dataclass
class WebProcess:
    """The application in a process of its own, served by uvicorn or daphne."""

    server: str
    environment: dict[str, str]
    world: dict[str, Any]
    log: Path
    port: int = 0
    process: subprocess.Popen[bytes] = field(init=False)

    def start(self) -> Self:
        with socket.socket() as listener, self.log.open("wb") as log:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", 0))
            listener.listen(128)
            self.port = listener.getsockname()[1]
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.realtime.serving", self.server, str(listener.fileno())],
                cwd=ROOT,
                env=os.environ | self.environment,
                pass_fds=[listener.fileno()],
                stdout=log,
                stderr=log,
            )
        # The socket listens already: this waits until somebody answers.
        try:
            self.emit([], patience_s=60)
        except OSError as error:
            raise AssertionError(f"The server did not start: {self.log.read_text()}") from error
        return self

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def terminate(self) -> None:
        """What a supervisor does first."""
        self.process.send_signal(signal.SIGTERM)

    def connect(self, secret: str | None = "editor", path: str = "/ws/v1/", **options: Any) -> "_Connecting":
        """A client with the key of that name in the test's world."""
        headers = dict(options.pop("additional_headers", {}))
        if secret:
            headers["Authorization"] = f"Bearer {self.world.get(secret, secret)}"
        url = f"ws://127.0.0.1:{self.port}{path}"
        return _Connecting(
            connect(url, additional_headers=headers, compression=None, ping_interval=None, **options)
        )

    def emit(self, events: list[Any], kind: str = "runs", patience_s: float = PATIENCE_S) -> None:
        """Let these events happen in the server process."""
        self.request("POST", f"/emit/{kind}", msgspec.json.encode(events), patience_s=patience_s)

    def request(
        self, method: str, path: str, body: bytes = b"", *, patience_s: float = PATIENCE_S, **headers: str
    ) -> Any:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", data=body, method=method, headers=headers
        )
        with urllib.request.urlopen(request, timeout=patience_s) as response:
            content = response.read()
        return json.loads(content) if content else None

    def fetch(self, path: str) -> bytes:
        """A page as it is."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=PATIENCE_S) as response:
            return bytes(response.read())

    def logged_errors(self) -> list[str]:
        """What the server complained about."""
        lines = self.log.read_text().splitlines()
        return [line for line in lines if "ERROR" in line or "Traceback" in line]


class _Connecting:
    """`async with` gives a WebSocketClient."""

    def __init__(self, connecting: Any) -> None:
        self._connecting = connecting

    async def __aenter__(self) -> WebSocketClient:
        return WebSocketClient(await self._connecting.__aenter__())

    async def __aexit__(self, *exc: Any) -> None:
        await self._connecting.__aexit__(*exc)


async def eventually(is_true: Callable[[], bool]) -> None:
    """Wait until `is_true()`."""
    for _ in range(PATIENCE_S * 100):
        if is_true():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never became true")
