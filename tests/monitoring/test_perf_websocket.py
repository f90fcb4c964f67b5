"""`manage.py perf websocket` against a server that really runs, and the frames that its clients read."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from monitoring.perf.crowd import Moved, marker, number_of
from monitoring.perf.follower import Follower
from realtime.frames import Unsubscribed, encode
from tests.e2e import conftest as e2e
from tests.monitoring.test_perf_command import perf, read

install = e2e.install
ACCEPTED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"


def test_every_client_gets_every_event_and_who_stops_reading_is_closed(install, tmp_path):
    out = tmp_path / "websocket.json"
    with install("run_server") as server:
        load = ("--connections", "40", "--duration", "6", "--events", "5", "--clients", "2")
        extras = ("--not-reading", "5", "--completions", "2", "--rest-rate", "10")
        answer = perf(server.var, "websocket", *load, *extras, "--json", str(out))
        refused = perf(server.var, "websocket", "--connections", "50000000")
    assert refused.returncode == 1 and "50,000,000 connections need as many open files" in refused.stderr
    assert out.exists(), answer.stderr
    report = read(out)
    figures = {name: figure.value for name, figure in report.all_figures().items()}
    assert report.command.endswith("--rest-rate 10 --server uvicorn")
    assert (figures["connected"], figures["missed events"], figures["other closes"]) == (40, 0, 0)
    assert (figures["REST errors"], figures["events that could not be emitted"]) == (0, 0)
    assert any(note.startswith("RSS of each web process") for note in report.notes)
    assert figures["web RSS, all connected"] >= figures["web RSS before"] > 50
    (events,) = (row for row in report.latencies if row.kind == "event")
    assert events.count == 30
    assert 0 < events.ms["first"] <= events.ms["p50"] <= events.ms["last"] <= events.ms["max"]
    assert figures["whole completion beyond the model's time, P50"] > 0
    assert figures["closed with 4408"] == 2, report.notes


@pytest.mark.parametrize("number", [0, 49, 50, 1234])
def test_a_marker_leads_back_to_its_event(number: int) -> None:
    label, version = marker(number)
    assert number_of(Moved(prompt="p", label=label, version=version)) == number


class Heard:
    """What a follower tells of its frames."""

    known: Mapping[bytes, Any] = {}

    def __init__(self) -> None:
        self.texts: list[bytes] = []
        self.ends: list[str | int] = []

    def connected(self, follower: Follower) -> None:
        self.ends.append("connected")

    def refused(self, follower: Follower, status: str) -> None:
        self.ends.append(status)

    def hear(self, follower: Follower, known: Any) -> None:
        self.texts.append(known)

    def read(self, follower: Follower, frame: bytes, payload: bytes) -> None:
        self.texts.append(payload)

    def closed(self, follower: Follower, code: int) -> None:
        self.ends.append(code)


class Wire(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.written = b""

    def write(self, data: Any) -> None:
        self.written += data

    def close(self) -> None:
        self.written += b"<close>"


def follower() -> tuple[Follower, Heard, Wire]:
    heard, wire = Heard(), Wire()
    one = Follower(heard, b"")
    one.connection_made(wire)
    return one, heard, wire


@pytest.mark.parametrize("step", [1, 3, 1_000_000])
def test_frames_are_read_however_they_are_cut(step: int) -> None:
    frames = [encode(Unsubscribed(text)) for text in ("a", "b" * 200, "c" * 70_000)]
    data = ACCEPTED + b"".join(frame.wire for frame in frames) + b"\x89\x02hi" + b"\x88\x02\x11\x38"
    one, heard, wire = follower()
    for start in range(0, len(data), step):
        one.data_received(data[start : start + step])
    one.connection_lost(None)
    assert heard.texts == [frame.texts[0] for frame in frames]
    assert heard.ends == ["connected", 4408]
    # A pong with the ping's words, the close frame sent back, both masked, then the end.
    assert wire.written == b"\x8a\x82\0\0\0\0hi" + b"\x88\x82\0\0\0\0\x11\x38" + b"<close>"


def test_a_known_frame_is_not_read_again() -> None:
    one, heard, _ = follower()
    frame = encode(Unsubscribed("a"))
    heard.known = {frame.wire: b"known"}
    one.data_received(ACCEPTED)
    one.data_received(frame.wire)
    one.data_received(frame.wire + frame.wire)
    assert heard.texts == [b"known"] * 3


def test_a_refusal_is_told() -> None:
    one, heard, wire = follower()
    one.data_received(b"HTTP/1.1 503 Service Unavailable\r\n\r\n")
    assert heard.ends == ["503"] and wire.written == b"<close>"
