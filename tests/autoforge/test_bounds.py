"""What a process keeps in memory has a bound in entries and one in bytes, and can be given up."""

import pytest
from django.core.cache import caches
from django.test import override_settings

from autoforge.caching import clear_copies, process_copies
from autoforge.copies import Kept
from autoforge.lru import Lru
from autoforge.trimming import can_trim, trim_all


def lru(**bounds: int) -> tuple[Lru[str, str], list[str]]:
    made: list[str] = []

    def make(key: str) -> str:
        made.append(key)
        if key == "wrong":
            raise ValueError(key)
        return key.upper()

    return Lru("things of a test", make, **{"max_entries": 3, "max_bytes": 100} | bounds), made


def test_what_was_used_last_is_made_once_and_the_longest_unused_leaves():
    held, made = lru()
    assert [held(key) for key in ("a", "b", "c", "a", "d", "a", "b")] == list("ABCADAB")
    assert made == ["a", "b", "c", "d", "b"]
    assert len(held) == held.size_bytes == 3


def test_bytes_bound_it_too_and_one_that_is_too_large_is_not_kept():
    held, made = lru(growth=10)
    assert held("x" * 6) and held("y" * 4) and held.size_bytes == 100
    assert held("z" * 5) and held.size_bytes == 90
    assert held("w" * 11) == "W" * 11 and held.size_bytes == 0
    assert held("w" * 11) and made[-2:] == ["w" * 11] * 2


def test_a_failure_is_not_kept():
    held, made = lru()
    for _ in range(2):
        with pytest.raises(ValueError, match="wrong"):
            held("wrong")
    assert made == ["wrong"] * 2 and held.size_bytes == 0


LOCAL = {
    "BACKEND": "autoforge.local_cache.LocalCache",
    "LOCATION": "bounded",
    "OPTIONS": {"MAX_ENTRIES": 100, "MAX_BYTES": 10_000, "IS_TRIMMED": True},
}


@override_settings(CACHES={"default": LOCAL | {"LOCATION": "kept"}, "bounded": LOCAL})
def test_a_local_cache_evicts_the_oldest_by_bytes():
    cache = caches["bounded"]
    for number in range(20):
        cache.set(str(number), "x" * 1_000)
    kept = [number for number in range(20) if cache.get(str(number))]
    assert kept == list(range(20 - len(kept), 20)) and 5 <= len(kept) <= 9
    cache.set("19", "y")
    cache.delete("18")
    assert cache.get("19") == "y" and cache.get("18") is None
    cache.set("large", "x" * 20_000)
    assert cache.get("large") is None
    cache.set("counter", 1)
    assert cache.incr("counter") == 2
    assert trim_all()["the cache bounded"] > 0
    assert cache.get("counter") is None
    cache.set("after", 1)
    assert cache.get("after") == 1 and cache.trim() < 1_000


def test_trimming_forgets_copies_and_a_failure_stops_no_other(caplog):
    clear_copies()
    copies = process_copies()
    copies.put((1, "p"), (), Kept.of(b"x" * 1_000), epoch=copies.epoch, read_at=1e12)

    def fails() -> int:
        raise OSError("disk")

    can_trim("a thing that fails", fails)
    try:
        assert trim_all()["copies of answers"] == 1_000
    finally:
        can_trim("a thing that fails", lambda: None)
    assert copies.get((1, "p"), ()) is None
    assert "a thing that fails could not be trimmed" in caplog.text
