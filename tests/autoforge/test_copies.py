"""What a process remembers by itself: bounded copies, and one load for many who want the same."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

from django.conf import settings
from django.test import override_settings

from autoforge.copies import Copies, Kept, SingleFlight

BY_LABEL = ("production", None)


class TestCopies:
    """Bounded in time, entries and bytes."""

    def put(self, copies: Copies, name: str, body: bytes = b"x", read_at: float | None = None) -> None:
        copies.put(
            (1, name), BY_LABEL, Kept.of(body), epoch=copies.epoch, read_at=read_at or time.monotonic()
        )

    def held(self, copies: Copies) -> list[Kept]:
        return [kept for group in copies._groups.values() for _, kept in group.values()]

    def test_a_copy_ages_from_when_it_was_read(self) -> None:
        copies = Copies()
        self.put(copies, "new")
        self.put(copies, "old", read_at=time.monotonic() - settings.PROCESS_CACHE_S)
        assert copies.get((1, "new"), BY_LABEL) is not None
        assert copies.get((1, "old"), BY_LABEL) is None
        assert settings.PROCESS_CACHE_S < 1

    @override_settings(PROCESS_CACHE_MAX_ENTRIES=10)
    def test_there_are_never_more_than_so_many(self) -> None:
        copies = Copies()
        for number in range(35):
            self.put(copies, str(number))
            assert len(self.held(copies)) <= 10
            assert copies.get((1, str(number)), BY_LABEL) is not None

    @override_settings(PROCESS_CACHE_MAX_BYTES=100)
    def test_there_are_never_more_bytes(self) -> None:
        copies = Copies()
        for size in (40, 40, 40, 99, 101, 5):
            self.put(copies, str(size), b"x" * size)
            assert sum(len(kept.body) for kept in self.held(copies)) <= 100
        assert copies.get((1, "101"), BY_LABEL) is None


class TestSingleFlight:
    def test_a_flight_that_takes_too_long_is_not_joined(self) -> None:
        flights: SingleFlight[str] = SingleFlight()
        has_begun, may_end = threading.Event(), threading.Event()

        def slowly() -> str:
            has_begun.set()
            assert may_end.wait(20)
            return "old"

        with ThreadPoolExecutor(1) as thread:
            slow = thread.submit(flights.run, "key", slowly, join_s=60)
            assert has_begun.wait(20)
            time.sleep(0.02)
            assert flights.run("key", lambda: "new", join_s=0.01) == "new"
            may_end.set()
            assert slow.result() == "old"
        assert flights._flights == {}
