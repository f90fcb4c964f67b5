"""A model vendor on loopback that costs almost nothing: OpenAI's chat completions after a set latency.

A stream begins after the latency and then comes at once.

Alone: `python -m monitoring.perf.vendor --latency-ms 100` prints its address; GET /stats counts its calls.
"""

import argparse
import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import httptools
import msgspec
import uvloop

from monitoring.perf.client import Client

_FRAME = {"id": "chatcmpl-perf", "created": 1_700_000_000, "model": "perf"}
_USAGE = {"prompt_tokens": 20, "completion_tokens": 2, "total_tokens": 22}
_WORDS = ("an ", "answer")
_STOP_TIMEOUT_S = 10


class Stats(msgspec.Struct):
    """Calls since the start."""

    calls: int = 0
    in_flight: int = 0
    max_in_flight: int = 0


class _Question(msgspec.Struct):
    """What of a request decides how it is answered."""

    stream: bool = False


def _response(body: bytes, status: str = "200 OK") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _whole() -> bytes:
    message = {"role": "assistant", "content": "".join(_WORDS)}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    answer = _FRAME | {"object": "chat.completion", "choices": [choice], "usage": _USAGE}
    return _response(msgspec.json.encode(answer))


def _streamed() -> bytes:
    """All events of a stream; each is a chunk of its own."""
    deltas = [{"role": "assistant", "content": ""}, *({"content": word} for word in _WORDS), {}]
    choices: list[list[object]] = [
        [{"index": 0, "delta": delta, "finish_reason": None if delta else "stop"}] for delta in deltas
    ]
    frame = _FRAME | {"object": "chat.completion.chunk"}
    chunks = [frame | {"choices": listed} for listed in choices] + [frame | {"choices": [], "usage": _USAGE}]
    events = [b"data: %s\n\n" % msgspec.json.encode(chunk) for chunk in chunks] + [b"data: [DONE]\n\n"]
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%s\r\n" % (len(event), event) for event in events) + b"0\r\n\r\n"


_WHOLE, _STREAMED = _whole(), _streamed()


class _Vendor(asyncio.Protocol):
    """One connection of a caller that sends one request at a time."""

    def __init__(self, stats: Stats, latency_s: float) -> None:
        self._stats, self._latency_s = stats, latency_s
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.WriteTransport | None = None
        self._url, self._body = b"", b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # of a TCP connection

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._write(_response(b"{}", "400 Bad Request"))

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        url, body = self._url, self._body
        self._url, self._body = b"", b""
        if url == b"/stats":
            self._write(_response(msgspec.json.encode(self._stats)))
            return
        is_streamed = msgspec.json.decode(body, type=_Question).stream
        stats = self._stats
        stats.calls += 1
        stats.in_flight += 1
        stats.max_in_flight = max(stats.max_in_flight, stats.in_flight)
        answer = _STREAMED if is_streamed else _WHOLE
        asyncio.get_running_loop().call_later(self._latency_s, self._answer, answer)

    def _answer(self, answer: bytes) -> None:
        self._stats.in_flight -= 1
        self._write(answer)

    def _write(self, data: bytes) -> None:
        if self._transport:
            self._transport.write(data)


async def _serve(port: int, latency_s: float) -> None:
    stats = Stats()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Vendor(stats, latency_s), "127.0.0.1", port, backlog=1024)
    sys.stdout.write(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


@contextmanager
def vendor(latency_ms: float) -> Iterator[str]:
    """A vendor in a process of its own, on a free port; yields its address."""
    command = [sys.executable, "-m", "monitoring.perf.vendor", "--latency-ms", str(latency_ms)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait(_STOP_TIMEOUT_S)
        process.stdout.close()


async def vendor_stats(url: str) -> Stats:
    """What the vendor at `url` has counted."""
    async with Client(url, connections=1) as client:
        answer = await client.ask(client.encode("GET", "/stats"))
        return msgspec.json.decode(answer.body, type=Stats)


def main() -> None:
    """Serve until terminated."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--latency-ms", type=float, default=100.0)
    options = parser.parse_args()
    with suppress(KeyboardInterrupt):
        uvloop.run(_serve(options.port, options.latency_ms / 1000))


if __name__ == "__main__":
    main()
