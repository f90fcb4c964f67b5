"""Single flight: one call for many who ask the same at the same time."""

import asyncio
import threading
import time
from contextlib import aclosing
from decimal import Decimal

import pytest
from django.test.utils import override_settings

from evaluations.slots import Slots, Turn
from prompts.llm import client, flights
from prompts.llm.providers.base import Completion, Delta, Prices, ProviderError, Request
from tests.fake_vendor import FakeVendor, Reply
from tests.prompts.llm.conftest import Ask

pytestmark = pytest.mark.usefixtures("in_memory", "quick_retries")
# Slow enough for others to join it on a busy machine.
SLOW = Reply(chunks=("a", "b", "c", "d"), chunk_delay_s=0.25)


async def texts(request: Request) -> list[str]:
    return [part.text async for part in client.stream(request) if isinstance(part, Delta)]


async def started(vendor: FakeVendor) -> None:
    await asyncio.to_thread(vendor.wait_until, lambda state: state.in_flight == 1)


async def test_many_who_ask_at_once_share_one_call_and_one_bill(vendor: FakeVendor, ask: Ask):
    vendor.default = Reply(delay_s=0.05)
    request = ask(endpoint_prices=Prices(Decimal(2), Decimal(10)))
    answers = await asyncio.gather(*(client.complete(request) for _ in range(20)))
    assert vendor.count == 1
    assert {answer.text for answer in answers} == {"Hello world"}
    assert sorted(answer.cached for answer in answers) == [False] + [True] * 19
    assert sum(answer.cost_usd or 0 for answer in answers) == Decimal("0.00003")
    assert sum(answer.saved_usd or 0 for answer in answers) == 19 * Decimal("0.00003")
    assert len(flights.board) == 0


async def test_different_questions_share_nothing(vendor: FakeVendor, ask: Ask):
    await asyncio.gather(*(client.complete(ask(repeat=number)) for number in range(5)))
    assert vendor.count == 5


async def test_uncached_calls_are_calls_of_their_own(vendor: FakeVendor, ask: Ask):
    vendor.default = Reply(delay_s=0.05)
    await asyncio.gather(*(client.complete(ask(cache="no-store")) for _ in range(3)))
    assert vendor.count == 3


async def test_a_follower_gets_the_pieces_from_the_beginning(vendor: FakeVendor, ask: Ask):
    vendor.default = SLOW
    leader = client.stream(ask())
    assert await anext(leader) == Delta("a")
    assert await texts(ask()) == ["a", "b", "c", "d"]
    assert [part.text async for part in leader] == ["b", "c", "d", "abcd"]
    assert vendor.count == 1


async def test_a_follower_that_streams_gets_pieces_of_a_call_nobody_streamed(vendor: FakeVendor, ask: Ask):
    vendor.default = SLOW
    waiting = asyncio.create_task(client.complete(ask()))
    await started(vendor)
    assert await texts(ask()) == ["a", "b", "c", "d"]
    assert (await waiting).text == "abcd"
    assert vendor.count == 1


async def test_the_call_goes_on_when_its_leader_leaves(vendor: FakeVendor, ask: Ask):
    vendor.default = SLOW
    leader = client.stream(ask())
    await anext(leader)
    follower = asyncio.create_task(client.complete(ask()))
    await asyncio.sleep(0)
    await leader.aclose()
    completion = await follower
    assert (completion.text, completion.cached, vendor.count, vendor.aborted) == ("abcd", False, 1, 0)


async def test_the_call_ends_when_the_last_one_leaves(vendor: FakeVendor, ask: Ask):
    vendor.default = Reply(text="a " * 1_000, chunk_delay_s=0.02)
    leader, follower = client.stream(ask()), client.stream(ask())
    await anext(leader)
    await anext(follower)
    await leader.aclose()
    await asyncio.sleep(0.05)
    assert vendor.in_flight == 1
    await follower.aclose()
    await asyncio.to_thread(vendor.wait_until, lambda state: state.aborted == 1)
    assert len(flights.board) == 0


async def test_who_asks_after_everybody_left_starts_afresh(vendor: FakeVendor, ask: Ask):
    vendor.script(Reply(delay_s=30))
    first = asyncio.create_task(client.complete(ask()))
    await started(vendor)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert (await client.complete(ask())).text == "Hello world"
    assert vendor.count == 2


async def test_a_failure_reaches_everybody(vendor: FakeVendor, ask: Ask):
    vendor.default = Reply(status=400, delay_s=0.05)
    outcomes = await asyncio.gather(*(client.complete(ask()) for _ in range(3)), return_exceptions=True)
    assert all(isinstance(outcome, ProviderError) for outcome in outcomes)
    assert vendor.count == 1


async def test_a_call_is_tried_again_for_those_who_have_got_nothing_yet(vendor: FakeVendor, ask: Ask):
    vendor.script(Reply(break_after=1, chunk_delay_s=0.05))
    answers = await asyncio.gather(*(client.complete(ask()) for _ in range(3)))
    assert {answer.text for answer in answers} == {"Hello world"}
    assert vendor.count == 2


def in_thread(coroutine, outcomes: list) -> threading.Thread:
    async def run() -> None:
        try:
            outcomes.append(await coroutine)
        except Exception as error:
            outcomes.append(error)

    thread = threading.Thread(target=asyncio.run, args=[run()])
    thread.start()
    return thread


def test_event_loops_of_one_process_share_a_call(vendor: FakeVendor, ask: Ask):
    vendor.default = Reply(chunks=("a", "b", "c"), chunk_delay_s=0.3)
    outcomes: list[Completion | list[str]] = []
    threads = [in_thread(client.complete(ask()), outcomes)]
    vendor.wait_until(lambda state: state.in_flight == 1)
    threads += [in_thread(texts(ask()), outcomes), in_thread(client.complete(ask()), outcomes)]
    for thread in threads:
        thread.join(30)
    assert vendor.count == 1
    assert [outcome for outcome in outcomes if isinstance(outcome, list)] == [["a", "b", "c"]]
    assert [outcome.text for outcome in outcomes if isinstance(outcome, Completion)] == ["abc", "abc"]


def test_a_follower_learns_that_the_loop_of_its_call_ended(vendor: FakeVendor, ask: Ask):
    vendor.default = Reply(delay_s=30)

    async def leave() -> None:
        asyncio.create_task(client.complete(ask()))  # noqa: RUF006 - the loop ends with it
        await asyncio.to_thread(vendor.wait_until, lambda state: state.in_flight == 1)
        await asyncio.to_thread(has_joined)

    def has_joined() -> None:
        [flight] = flights.board._flights.values()
        vendor.wait_until(lambda _: len(flight._readers) == 2)

    outcomes: list[Completion | Exception] = []
    leader = threading.Thread(target=asyncio.run, args=[leave()])
    leader.start()
    vendor.wait_until(lambda state: state.in_flight == 1)
    in_thread(client.complete(ask()), outcomes).join(30)
    leader.join(30)
    [error] = outcomes
    assert isinstance(error, ProviderError)
    assert (error.code, vendor.count) == ("unavailable", 1)


async def test_closing_a_stream_that_was_never_read_calls_nobody(vendor: FakeVendor, ask: Ask):
    async with aclosing(client.stream(ask())):
        pass
    assert vendor.count == 0


async def test_a_follower_is_not_delayed_by_one_who_does_not_read(vendor: FakeVendor, ask: Ask):
    vendor.default = SLOW
    idle = client.stream(ask())
    await anext(idle)
    with override_settings(MODEL_MAX_ATTEMPTS=1):
        assert await texts(ask()) == ["a", "b", "c", "d"]
    assert [part.text async for part in idle][:-1] == ["b", "c", "d"]


async def test_a_withdrawn_turn_makes_no_call(vendor: FakeVendor, ask: Ask):
    slots = Slots(on_excess=lambda: None)
    slots.allow(1)
    turn = Turn(slots)
    turn.withdraw()
    with pytest.raises(ProviderError):
        await client.complete(ask(), turn=turn)
    assert (vendor.count, slots.busy, turn.has_begun) == (0, 0, False)


async def test_a_withdrawn_turn_goes_on_for_others(vendor: FakeVendor, ask: Ask):
    slots = Slots(on_excess=lambda: None)
    turn = Turn(slots)
    mine = asyncio.create_task(client.complete(ask(), turn=turn))
    other = asyncio.create_task(client.complete(ask()))
    deadline = time.monotonic() + 10
    while not any(flight.is_shared for flight in flights.board._flights.values()):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    turn.withdraw()
    slots.allow(1)
    assert (await mine).text == (await other).text and vendor.count == 1
