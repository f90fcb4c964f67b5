"""Server-sent events, however the network cuts them."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prompts.llm.providers.sse import Event, EventParser

STREAM = (
    b': comment\n\nevent: delta\ndata: {"a":\ndata: 1}\nid: 3\n\ndata:no space\n\n\n\n'
    b"event: lonely\n\ndata: [DONE]\n\n"
)
EVENTS = [Event("delta", b'{"a":\n1}'), Event("", b"no space"), Event("", b"[DONE]")]


def parsed(chunks: list[bytes]) -> list[Event]:
    parser = EventParser()
    return [event for chunk in chunks for event in parser.feed(chunk)] + parser.finish()


@given(st.lists(st.integers(0, len(STREAM) * 2), max_size=12), st.sampled_from([b"\n", b"\r\n", b"\r"]))
def test_cuts_and_line_ends_change_nothing(cuts: list[int], newline: bytes):
    stream = STREAM.replace(b"\n", newline)
    bounds = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    chunks = [stream[start:end] for start, end in pairwise(bounds)]
    assert parsed(chunks) == EVENTS


def test_bytes_one_by_one():
    stream = STREAM.replace(b"\n", b"\r\n")
    assert parsed([bytes([byte]) for byte in stream]) == EVENTS


@pytest.mark.parametrize("end", [b"", b"\n", b"\r", b"\r\n"])
def test_a_missing_last_blank_line_is_forgiven(end: bytes):
    assert parsed([b"data: 1\n\ndata: 2" + end]) == [Event("", b"1"), Event("", b"2")]


@given(st.binary(max_size=200))
def test_any_bytes_are_parsed_without_an_error(data: bytes):
    assert isinstance(parsed([data]), list)
