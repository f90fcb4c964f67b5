"""Is it slower than before? A difference counts when it is beyond what both measurements waver."""

from math import hypot

import msgspec

from monitoring.perf.report import Figure, Report

# Twice the standard deviation of the difference; single runs differ by at least this share anyway.
_DEVIATIONS = 2.0
_MIN_SHARE = 0.05
# For a figure that was measured once and has no noise of its own.
_UNKNOWN_SHARE = 0.15


class Change(msgspec.Struct, kw_only=True):
    """A figure then and now; `allowed` is how much worse it may be."""

    name: str
    before: float
    now: float
    unit: str
    allowed: float
    is_regression: bool


def compare(now: Report, before: Report) -> list[Change]:
    """Every figure that both reports have and that has a better direction."""
    known = before.all_figures()
    return [
        _change(name, figure, known[name])
        for name, figure in now.all_figures().items()
        if figure.better and name in known
    ]


def _change(name: str, now: Figure, before: Figure) -> Change:
    worse = now.value - before.value if now.better == "lower" else before.value - now.value
    allowed = _allowed(now, before)
    return Change(
        name=name,
        before=before.value,
        now=now.value,
        unit=now.unit,
        allowed=allowed,
        is_regression=worse > allowed,
    )


def _allowed(now: Figure, before: Figure) -> float:
    if now.noise is None or before.noise is None:
        return _UNKNOWN_SHARE * abs(before.value)
    return max(_DEVIATIONS * hypot(now.noise, before.noise), _MIN_SHARE * abs(before.value))
