"""The same bytes into many sockets with one system call: Linux' io_uring, by hand.

A thread that calls `send` on thousands of sockets keeps Python's lock for all of that time, and has to get
it back from the threads that answer requests again and again. One call for hundreds of sockets is made
without the lock. Layout and numbers are those of linux/io_uring.h.
"""

import ctypes
import logging
import mmap
import os
import socket
import struct
import sys
import weakref
from array import array
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from django.conf import settings

logger = logging.getLogger(__name__)

# Sockets of one call, at most; a power of two.
SLOTS = 256

_SETUP, _ENTER = 425, 426
_GET_EVENTS = 1
_SEND = 26
_SEND_FLAGS = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
_SLOTS_OFFSET = 0x10000000
# struct io_uring_params, of numbers of 4 bytes: how many, and the places of those that are needed.
_PARAMETERS = 30
_ENTRIES, _RESULT_ENTRIES, _FEATURES = 0, 1, 5
_TAIL, _ORDER = 11, 16
_RESULTS_HEAD, _RESULTS_TAIL, _RESULTS = 20, 21, 25
_ONE_MAPPING = 1
# A slot (struct io_uring_sqe): opcode, …, file, offset, address, length, flags, user data, …
_SLOT_BYTES, _SLOT = 64, struct.Struct("<BBHiQQIIQ")
# A result (struct io_uring_cqe): user data, and the bytes taken or a negative error number.
_RESULT_BYTES = 16

_system_call = ctypes.CDLL(None, use_errno=True).syscall
_system_call.restype = ctypes.c_long


class Ring:
    """For one thread at a time. Raises OSError where the system has no io_uring or forbids it."""

    def __init__(self) -> None:
        given = (ctypes.c_uint32 * _PARAMETERS)()
        self._file = _called(_SETUP, SLOTS, given)
        weakref.finalize(self, os.close, self._file)
        if not given[_FEATURES] & _ONE_MAPPING:
            raise OSError("The io_uring of this system is too old.")
        self.is_broken = False
        self._map_slots(given[_ENTRIES])
        self._map_numbers(given)

    def _map_slots(self, count: int) -> None:
        slots = mmap.mmap(self._file, _SLOT_BYTES * count, offset=_SLOTS_OFFSET)
        for slot in range(count):
            _SLOT.pack_into(slots, _SLOT_BYTES * slot, _SEND, 0, 0, -1, 0, 0, 0, _SEND_FLAGS, slot)
        # One of these for each slot: 64 bytes are 16 numbers of 4, or 8 of 8.
        self._files = memoryview(slots).cast("i")[1::16]
        self._addresses = memoryview(slots).cast("Q")[2::8]
        self._lengths = memoryview(slots).cast("I")[6::16]

    def _map_numbers(self, given: Any) -> None:
        order, results = given[_ORDER], given[_RESULTS]
        results_end = results + _RESULT_BYTES * given[_RESULT_ENTRIES]
        shared = mmap.mmap(self._file, max(order + 4 * given[_ENTRIES], results_end))
        self._numbers = memoryview(shared).cast("I")
        self._tail = given[_TAIL] // 4
        self._results_head, self._results_tail = given[_RESULTS_HEAD] // 4, given[_RESULTS_TAIL] // 4
        for slot in range(given[_ENTRIES]):
            self._numbers[order // 4 + slot] = slot
        told = memoryview(shared)[results:results_end].cast("i")
        self._told_slots, self._told_sizes = told[::4], told[2::4]

    def send(self, files: Sequence[int], data: bytes) -> list[tuple[int, int]]:
        """Give `data` to every socket of `files` (SLOTS at most) without waiting for any.

        Of each that did not take all of it: its place in `files`, and how many bytes it took.
        """
        address = ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value
        self._addresses[:] = memoryview(array("Q", [address or 0]) * SLOTS)
        self._lengths[:] = memoryview(array("I", [len(data)]) * SLOTS)
        first = self._numbers[self._tail]
        for slot, file in enumerate(files, first):
            self._files[slot % SLOTS] = file
        self._numbers[self._tail] = (first + len(files)) % 2**32
        try:
            self._submit(len(files))
        except OSError as error:
            logger.warning("io_uring ceased to work: events are sent one by one from now on. %s", error)
            self.is_broken = True
        head, arrived = self._numbers[self._results_head], self._arrived()
        sizes = _around(self._told_sizes, head, arrived)
        slots = _around(self._told_slots, head, arrived)
        self._numbers[self._results_head] = (head + arrived) % 2**32
        if sizes.count(len(data)) == len(files):
            return []
        taken = dict.fromkeys(range(len(files)), 0)
        taken |= {(slot - first) % SLOTS: max(size, 0) for slot, size in zip(slots, sizes, strict=True)}
        return [(place, size) for place, size in taken.items() if size < len(data)]

    def _submit(self, count: int) -> None:
        """Raises OSError when the system does not take all of them."""
        submitted = 0
        while submitted < count or self._arrived() < count:
            with suppress(InterruptedError):
                missing = count - self._arrived()
                submitted += _called(_ENTER, self._file, count - submitted, missing, _GET_EVENTS, None, 0)

    def _arrived(self) -> int:
        """Results that have not been looked at."""
        return (self._numbers[self._results_tail] - self._numbers[self._results_head]) % 2**32


def _around(ring: memoryview, start: int, count: int) -> list[int]:
    """`count` numbers from `start` on, where after the last comes the first."""
    start %= len(ring)
    return [*ring[start : start + count], *ring[: max(0, start + count - len(ring))]]


def _called(number: int, *arguments: Any) -> int:
    """A system call, made without Python's lock. Raises OSError."""
    result: int = _system_call(number, *arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def open_ring() -> Ring | None:
    """None where the system has none, or the operator wants none."""
    if not (settings.WS_IO_URING and sys.platform == "linux"):
        return None
    try:
        return Ring()
    except OSError as error:
        logger.info("Events are sent one by one: io_uring cannot be used here. %s", error)
        return None
