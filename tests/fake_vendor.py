"""A model vendor on loopback: speaks OpenAI's and Anthropic's protocols and misbehaves by script.

In tests: `with fake_vendor() as vendor: vendor.script(Reply(status=429, retry_after="1"))`.
Alone: `python -m tests.fake_vendor --port 0 --latency-ms 50` prints its URL; GET /stats counts its calls.
"""

import argparse
import asyncio
import contextlib
import hashlib
import json
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

KEPT_CALLS = 10_000


@dataclass(frozen=True)
class Reply:
    """How one call is answered. Times in seconds."""

    text: str = "Hello world"
    chunks: tuple[str, ...] | None = None  # how a stream cuts the text; None: at spaces
    delay_s: float = 0.0  # before the response begins
    chunk_delay_s: float = 0.0  # before each chunk
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    error: dict[str, Any] | None = None  # the error object of a status other than 200
    body: bytes | None = None  # the whole response, instead of what the protocol says
    finish_reason: str = "stop"
    usage: dict[str, Any] | None = field(default_factory=lambda: {"prompt_tokens": 5, "completion_tokens": 2})
    message: dict[str, Any] = field(default_factory=dict)  # further fields of an unstreamed message
    deltas: tuple[dict[str, Any], ...] = ()  # further deltas (or content blocks) of a stream
    error_after: int | None = None  # chunks before an error event
    break_after: int | None = None  # chunks before the connection is cut
    end_early: bool = False  # the stream ends properly, but without a finish reason
    split: int | None = None  # bytes in a write: cuts events anywhere
    newline: str = "\n"
    comments: bool = False  # keep-alive comments between events
    has_done: bool = True  # OpenAI's last event


@dataclass(frozen=True)
class Call:
    """A request that arrived."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    at: float  # time.monotonic()


class FakeVendor:
    """The server's state, safe to read from the test's thread."""

    def __init__(self, default: Reply | None = None) -> None:
        self.url = ""
        self.default = default or Reply()
        self.calls: deque[Call] = deque(maxlen=KEPT_CALLS)
        self.count = 0
        self.questions: Counter[str] = Counter()
        self.in_flight = 0
        self.max_in_flight = 0
        self.aborted = 0
        self.connections: set[Any] = set()
        self._script: deque[Reply] = deque()

    @property
    def base_url(self) -> str:
        """What an endpoint's base_url is set to."""
        return self.url + "/v1"

    def script(self, *replies: Reply) -> None:
        """Answer the next calls so, in this order; later ones get the default."""
        self._script.extend(replies)

    def stats(self) -> dict[str, int]:
        """Counts since the start; `repeated` are calls with a body that came before."""
        return {
            "calls": self.count,
            "distinct": len(self.questions),
            "repeated": self.count - len(self.questions),
            "in_flight": self.in_flight,
            "max_in_flight": self.max_in_flight,
            "aborted": self.aborted,
        }

    def wait_until(self, is_so: Any, timeout_s: float = 30.0) -> None:
        """Wait until `is_so(self)`; fails after the timeout."""
        deadline = time.monotonic() + timeout_s
        while not is_so(self):
            assert time.monotonic() < deadline, self.stats()
            time.sleep(0.005)

    def application(self) -> web.Application:
        app = web.Application(client_max_size=64 * 2**20)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_post("/v1/messages", self._messages)
        app.router.add_get("/stats", self._stats)
        return app

    async def _stats(self, request: web.Request) -> web.Response:
        return web.json_response(self.stats())

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        return await self._serve(request, OpenAIShape())

    async def _messages(self, request: web.Request) -> web.StreamResponse:
        return await self._serve(request, AnthropicShape())

    async def _serve(self, request: web.Request, shape: "Shape") -> web.StreamResponse:
        body = await self._arrived(request)
        reply = self._script.popleft() if self._script else self.default
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        try:
            await asyncio.sleep(reply.delay_s)
            if reply.status != 200 or reply.body is not None:
                return _plain(reply)
            if body.get("stream"):
                return await _stream(request, reply, shape, body)
            return web.json_response(shape.whole(reply, body), headers=reply.headers)
        except (asyncio.CancelledError, ConnectionResetError):
            self.aborted += 1
            raise
        finally:
            self.in_flight -= 1

    async def _arrived(self, request: web.Request) -> dict[str, Any]:
        raw = await request.read()
        body: dict[str, Any] = json.loads(raw)
        self.count += 1
        self.questions[hashlib.sha256(raw).hexdigest()] += 1
        self.connections.add(request.transport and request.transport.get_extra_info("peername"))
        self.calls.append(Call(request.path, dict(request.headers), body, time.monotonic()))
        return body


class Shape:
    """One vendor's words: the whole answer, and a stream's events."""

    def whole(self, reply: Reply, body: dict[str, Any]) -> dict[str, Any]:
        raise AssertionError

    def opening(self, reply: Reply, body: dict[str, Any]) -> list[str]:
        raise AssertionError

    def piece(self, text: str) -> str:
        raise AssertionError

    def closing(self, reply: Reply, body: dict[str, Any]) -> list[str]:
        raise AssertionError

    def error(self) -> str:
        raise AssertionError


class OpenAIShape(Shape):
    """Chat completions."""

    def whole(self, reply: Reply, body: dict[str, Any]) -> dict[str, Any]:
        message = {"role": "assistant", "content": reply.text} | reply.message
        choice = {"index": 0, "message": message, "finish_reason": reply.finish_reason}
        return self._frame(body, "chat.completion") | {"choices": [choice], "usage": reply.usage}

    def opening(self, reply: Reply, body: dict[str, Any]) -> list[str]:
        self._body = body
        return [self._chunk({"role": "assistant", "content": ""}), *map(self._chunk, reply.deltas)]

    def piece(self, text: str) -> str:
        return self._chunk({"content": text})

    def closing(self, reply: Reply, body: dict[str, Any]) -> list[str]:
        events = [self._chunk({}, reply.finish_reason)]
        if (body.get("stream_options") or {}).get("include_usage") and reply.usage:
            frame = self._frame(body, "chat.completion.chunk")
            events.append(_event(frame | {"choices": [], "usage": reply.usage}))
        return [*events, "data: [DONE]\n\n"] if reply.has_done else events

    def error(self) -> str:
        return _event({"error": {"message": "the server had an error", "type": "server_error"}})

    def _chunk(self, delta: dict[str, Any], finish_reason: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        return _event(self._frame(self._body, "chat.completion.chunk") | {"choices": [choice]})

    def _frame(self, body: dict[str, Any], kind: str) -> dict[str, Any]:
        frame = {"id": "chatcmpl-1", "object": kind, "created": 1_700_000_000}
        return frame | {"model": body.get("model"), "system_fingerprint": "fp_fake"}


class AnthropicShape(Shape):
    """Messages."""

    def whole(self, reply: Reply, body: dict[str, Any]) -> dict[str, Any]:
        blocks = [{"type": "text", "text": reply.text}, *reply.message.get("content", [])]
        usage = reply.usage or {}
        if "prompt_tokens" in usage:
            usage = {"input_tokens": usage["prompt_tokens"], "output_tokens": usage["completion_tokens"]}
        return self._message(body) | {"content": blocks, "stop_reason": reply.finish_reason, "usage": usage}

    def opening(self, reply: Reply, body: dict[str, Any]) -> list[str]:
        start = self._message(body) | {"content": [], "usage": {"input_tokens": 5, "output_tokens": 1}}
        events = [
            {"type": "message_start", "message": start},
            {"type": "ping"},
            *reply.deltas,
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        ]
        return [_event(event, event["type"]) for event in events]

    def piece(self, text: str) -> str:
        delta = {"type": "text_delta", "text": text}
        return _event({"type": "content_block_delta", "index": 0, "delta": delta}, "content_block_delta")

    def closing(self, reply: Reply, body: dict[str, Any]) -> list[str]:
        usage = {"output_tokens": (reply.usage or {}).get("completion_tokens", 2)}
        delta = {"stop_reason": reply.finish_reason, "stop_sequence": None}
        events = [
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": delta, "usage": usage},
            {"type": "message_stop"},
        ]
        return [_event(event, event["type"]) for event in events]

    def error(self) -> str:
        error = {"type": "overloaded_error", "message": "Overloaded"}
        return _event({"type": "error", "error": error}, "error")

    def _message(self, body: dict[str, Any]) -> dict[str, Any]:
        return {"id": "msg_1", "type": "message", "role": "assistant", "model": body.get("model")}


def _event(data: dict[str, Any], kind: str = "") -> str:
    return (f"event: {kind}\n" if kind else "") + f"data: {json.dumps(data)}\n\n"


def _plain(reply: Reply) -> web.Response:
    error = reply.error or {"message": f"status {reply.status}", "type": "fake_error"}
    body = reply.body if reply.body is not None else json.dumps({"error": error}).encode()
    return web.Response(
        status=reply.status, body=body, headers={"Content-Type": "application/json"} | reply.headers
    )


async def _stream(
    request: web.Request, reply: Reply, shape: Shape, body: dict[str, Any]
) -> web.StreamResponse:
    headers = {"Content-Type": "text/event-stream"} | reply.headers
    response = web.StreamResponse(headers=headers)
    await response.prepare(request)
    async for event in _events(request, reply, shape, body):
        data = event.replace("\n", reply.newline).encode()
        for start in range(0, len(data), reply.split or len(data)):
            await response.write(data[start : start + (reply.split or len(data))])
            if reply.split:
                await asyncio.sleep(0)
    await response.write_eof()
    return response


async def _events(
    request: web.Request, reply: Reply, shape: Shape, body: dict[str, Any]
) -> AsyncIterator[str]:
    for event in shape.opening(reply, body):
        yield event
    chunks = _pieces(reply)
    for position in range(len(chunks) + 1):
        if position == reply.break_after and request.transport:
            request.transport.abort()
            return
        if position == reply.error_after:
            yield shape.error()
            return
        if position < len(chunks):
            await asyncio.sleep(reply.chunk_delay_s)
            yield (": keep-alive\n\n" if reply.comments else "") + shape.piece(chunks[position])
    for event in [] if reply.end_early else shape.closing(reply, body):
        yield event


def _pieces(reply: Reply) -> list[str]:
    if reply.chunks is not None:
        return list(reply.chunks)
    words = reply.text.split(" ")
    return [word if position == 0 else " " + word for position, word in enumerate(words)]


async def _serve(vendor: FakeVendor, port: int, started: Callable[[], None], stop: asyncio.Event) -> None:
    # The handler of a client that left is cancelled: that is how `aborted` learns of it.
    runner = web.AppRunner(
        vendor.application(), handler_cancellation=True, access_log=None, shutdown_timeout=0.1
    )
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port, backlog=1_024)
    await site.start()
    vendor.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    started()
    await stop.wait()
    await runner.cleanup()


@contextlib.contextmanager
def fake_vendor(default: Reply | None = None) -> Iterator[FakeVendor]:
    """A vendor on a free port, in a thread of its own."""
    vendor, started = FakeVendor(default), threading.Event()
    stop = asyncio.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def serve() -> None:
        loops.append(asyncio.get_running_loop())
        await _serve(vendor, 0, started.set, stop)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert started.wait(10), "the fake vendor did not start"
        yield vendor
    finally:
        loops[0].call_soon_threadsafe(stop.set)
        thread.join(10)


async def _stand_alone(port: int, reply: Reply) -> None:
    vendor = FakeVendor(reply)

    def announce() -> None:
        sys.stdout.write(vendor.url + "\n")
        sys.stdout.flush()

    await _serve(vendor, port, announce, asyncio.Event())


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--latency-ms", type=float, default=0.0)
    parser.add_argument("--text", default="Hello world")
    parser.add_argument("--tokens-per-s", type=float, default=0.0, help="0: all at once")
    options = parser.parse_args()
    pause_s = 1 / options.tokens_per_s if options.tokens_per_s else 0.0
    reply = Reply(text=options.text, delay_s=options.latency_ms / 1000, chunk_delay_s=pause_s)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_stand_alone(options.port, reply))


if __name__ == "__main__":
    main()
