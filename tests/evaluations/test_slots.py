"""Slots: never more calls at once than are allowed, also while what is allowed changes."""

import asyncio

from evaluations.slots import Slots


async def test_what_is_told_stays_true_until_more_is_allowed() -> None:
    slots = Slots(on_excess=lambda: None)
    slots.allow(10)
    for _ in range(3):
        await slots.take()
    assert slots.hold() == 3
    waiting = asyncio.create_task(slots.take())
    await asyncio.sleep(0)
    assert not waiting.done() and slots.busy == 3
    slots.give_back()
    await waiting
    assert slots.busy == 3
    slots.allow(4)
    await slots.take()
    assert slots.busy == 4


async def test_calls_above_what_is_allowed_end_by_themselves() -> None:
    ended: list[int] = []
    slots = Slots(on_excess=lambda: ended.append(slots.busy))
    slots.allow(4)
    for _ in range(4):
        await slots.take()
    slots.allow(2)
    waiting = asyncio.create_task(slots.take())
    await asyncio.sleep(0)
    slots.give_back()
    slots.give_back()
    await asyncio.sleep(0)
    assert ended == [3, 2] and not waiting.done()
    slots.give_back()
    await waiting
    assert slots.busy == 2
