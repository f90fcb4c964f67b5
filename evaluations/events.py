"""What happened to runs: typed messages sent after the commit. The only way out of this app."""

from uuid import UUID

import msgspec
from django.dispatch import Signal

# Receivers get `event=`, one of the structs below. Sent with `send_robust`, from any thread.
run_event = Signal()


class RunEvent(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Base: which run of which project."""

    project_id: int
    run_id: UUID


class RunProgressed(RunEvent, frozen=True, kw_only=True):
    """Coalesced counters, at most one every 100 ms and worker; the last one of a run has its final state."""

    state: str
    total: int
    done: int
    passed: int
    failed: int
    errors: int
    cache_hits: int
    cost_usd: str
    saved_usd: str


class ResultRecorded(RunEvent, frozen=True, kw_only=True):
    """One batch of results has been committed: short rows without outputs."""

    results: list[dict[str, object]]


class CellTokens(RunEvent, frozen=True, kw_only=True):
    """Text that a running cell has received, at most one message every 50 ms."""

    case: int
    column: int
    repeat: int
    text: str


class RunEnded(RunEvent, frozen=True, kw_only=True):
    """The run reached a final state."""

    state: str


def emit(event: RunEvent) -> None:
    """Tell every listener; a listener's failure is logged and harms nobody."""
    run_event.send_robust(sender=type(event), event=event)
