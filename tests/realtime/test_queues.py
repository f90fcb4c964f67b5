"""Events that wait have a bound in bytes, beside the one in number."""

import asyncio
import queue
from typing import Any

import pytest

from realtime.bus import Message
from realtime.queues import QUEUE_BYTES, LoopQueue, ThreadQueue

LARGE = Message("g", "tokens", b"x" * (QUEUE_BYTES // 4 + 1))
SMALL = Message("g", "ended")


@pytest.mark.parametrize(
    ("kind", "is_full"), [(ThreadQueue, queue.Full), (LoopQueue, asyncio.QueueFull)], ids=["threads", "loop"]
)
async def test_large_events_fill_a_queue_that_has_room_for_many(kind: Any, is_full: type[Exception]):
    waiting = kind(1_000)
    for _ in range(4):
        waiting.put_nowait(LARGE)
    with pytest.raises(is_full):
        waiting.put_nowait(SMALL)
    assert waiting.get_nowait() is LARGE
    waiting.put_nowait(SMALL)
    assert [waiting.get_nowait() for _ in range(4)] == [LARGE, LARGE, LARGE, SMALL]
    assert waiting.size_bytes == 0 and waiting.empty()
    few = kind(1)
    few.put_nowait(SMALL)
    with pytest.raises(is_full):
        few.put_nowait(SMALL)
