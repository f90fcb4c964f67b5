"""WebSocket clients that come, follow a topic and go again, as pages do that are opened and closed."""

import asyncio
from urllib.parse import urlsplit

import msgspec
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from monitoring.perf.crowd import Said
from monitoring.perf.errors import PerfError
from monitoring.perf.server import Server

_AT_ONCE = 20
_TIMEOUT_S = 30.0
_SUBSCRIBE = '{"type":"subscribe","topic":"prompts"}'


async def visit(server: Server, count: int) -> None:
    """So many clients, some at once. Raises PerfError when one does not get its snapshot."""
    places = asyncio.Semaphore(_AT_ONCE)

    async def one() -> None:
        async with places:
            await _come_and_go(server)

    try:
        async with asyncio.TaskGroup() as visits:
            for _ in range(count):
                visits.create_task(one())
    except* (OSError, WebSocketException) as errors:
        raise PerfError(f"A WebSocket was not served: {errors.exceptions[0]!r}.") from errors


async def _come_and_go(server: Server) -> None:
    url = urlsplit(server.url)._replace(scheme="ws", path="/ws/v1/").geturl()
    headers = {"Authorization": f"Bearer {server.key}"}
    async with asyncio.timeout(_TIMEOUT_S), connect(url, additional_headers=headers) as socket:
        await socket.send(_SUBSCRIBE)
        while msgspec.json.decode(await socket.recv(), type=Said).type != "snapshot":
            pass
