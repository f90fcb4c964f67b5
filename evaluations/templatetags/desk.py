"""How the operator's desk writes numbers and draws states, shares and differences."""

import json
from decimal import Decimal
from typing import Any

from django import template
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from evaluations.models import Run
from evaluations.schemas import versioned

register = template.Library()

UNKNOWN = "–"
# Every state has a sign of its own: nobody has to tell the colours apart.
_SIGNS = {
    "queued": "schedule",
    "running": "progress_activity",
    "finished": "check_circle",
    "failed": "cancel",
    "cancelled": "block",
    "over_budget": "savings",
    "passed": "check",
    "error": "warning",
}
_VERDICTS = {
    "regressed": ("trending_down", "failed"),
    "improved": ("trending_up", "passed"),
    "unclear": ("trending_flat", "unclear"),
}
_MINUTE_S, _HOUR_S = 60, 3600
_CENT = Decimal("0.01")


register.filter("versioned", versioned)


@register.filter
def percent(share: float | None) -> str:
    """A share of 0..1 as a percentage."""
    return UNKNOWN if share is None else f"{share:.1%}"


@register.filter
def points(difference: float | None) -> str:
    """A difference of two shares in percentage points, with its sign."""
    return UNKNOWN if difference is None else f"{difference * 100:+.1f}".replace("-", "−")


@register.filter
def decimals(value: float | None, places: int = 3) -> str:
    return UNKNOWN if value is None else f"{value:.{places}f}"


@register.filter
def grouped(count: int | None) -> str:
    """A count with its thousands apart."""
    return UNKNOWN if count is None else f"{count:,}"


@register.filter
def usd(amount: Decimal | float | None) -> str:
    """Dollars with cents, or with three digits that count when it is less than a cent."""
    if amount is None:
        return UNKNOWN
    if not amount:
        return "$0"
    if amount >= _CENT:
        return f"${amount:,.2f}"
    return "$" + f"{float(f'{amount:.3g}'):.9f}".rstrip("0")


@register.filter
def milliseconds(value: float | None) -> str:
    """A latency: below a second in ms, else in s."""
    if value is None:
        return UNKNOWN
    return f"{value:,.0f} ms" if value < 1000 else f"{value / 1000:,.1f} s"


@register.filter
def duration(seconds: float | None) -> str:
    """A duration in its two largest units."""
    if seconds is None:
        return UNKNOWN
    if seconds < _MINUTE_S:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < _HOUR_S:
        return f"{whole // _MINUTE_S} min {whole % _MINUTE_S:02d} s"
    return f"{whole // _HOUR_S} h {whole % _HOUR_S // _MINUTE_S:02d} min"


@register.filter
def p_value(value: float | None) -> str:
    """A p-value as papers write it."""
    if value is None:
        return UNKNOWN
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


@register.filter
def pretty(value: Any) -> str:
    """Text as it is, everything else as indented JSON."""
    return value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)


@register.simple_tag
def state_badge(state: str) -> SafeString:
    """A run's or a result's state: a sign, the word and a colour."""
    return _badge(state, _SIGNS.get(state, "help"), state.replace("_", " "))


def _badge(state: str, sign: str, word: str) -> SafeString:
    return format_html(
        '<span class="state state-{}"><span class="material-symbols-outlined" aria-hidden="true">{}</span>'
        "{}</span>",
        state,
        sign,
        word,
    )


@register.simple_tag
def verdict_badge(verdict: str) -> SafeString:
    """Whether something got better or worse: a sign, the word and a colour."""
    sign, state = _VERDICTS[verdict]
    return _badge(state, sign, verdict)


@register.simple_tag
def share_bar(share: float) -> SafeString:
    """A share of 0..1 as a bar with its percentage."""
    bar = format_html('<rect x="0" y="2" width="{}" height="8" class="bar-mark"/>', f"{100 * share:.2f}")
    return format_html("{}{}", _svg("interval", percent(share), bar), percent(share))


@register.simple_tag
def progress_bar(run: Run) -> SafeString:
    """How many of the run's cells passed, failed, ended in an error; the rest is to come."""
    shares = [("passed", run.passed), ("failed", run.failed), ("error", run.errors)]
    text = f"{run.done} of {run.total}: {run.passed} passed, {run.failed} failed, {run.errors} errors"
    left = 0.0
    parts = []
    for name, count in shares:
        width = 100 * count / run.total if run.total else 0
        parts.append((f"{left:.2f}", f"{width:.2f}", name))
        left += width
    bars = format_html_join("", '<rect x="{}" y="0" width="{}" height="8" class="bar-{}"/>', parts)
    return _svg("progress", text, bars, height=8)


@register.simple_tag
def interval_bar(share: float | None, interval: tuple[float, float] | None) -> SafeString:
    """A share of 0..1 as a mark, with its interval as a band, on a scale from 0 to 1."""
    if share is None or interval is None:
        return SafeString("")
    low, high = interval
    text = f"{percent(share)}, 95 % interval {percent(low)} to {percent(high)}"
    return _svg("interval", text, _band(low, high, share))


@register.simple_tag
def difference_bar(difference: float | None, interval: tuple[float, float] | None) -> SafeString:
    """A difference of two shares on a scale from −1 to 1, zero marked in the middle."""
    if difference is None or interval is None:
        return SafeString("")
    low, high = ((bound + 1) / 2 for bound in interval)
    text = f"{points(difference)} points, 95 % interval {points(interval[0])} to {points(interval[1])}"
    zero = SafeString('<rect x="49.8" y="0" width="0.4" height="12" class="bar-zero"/>')
    return _svg("interval", text, zero + _band(low, high, (difference + 1) / 2))


def _band(low: float, high: float, mark: float) -> SafeString:
    """Positions are shares of the width."""
    return format_html(
        '<rect x="{}" y="3" width="{}" height="6" class="bar-range"/>'
        '<rect x="{}" y="0" width="1.6" height="12" class="bar-mark"/>',
        f"{100 * low:.2f}",
        f"{100 * max(high - low, 0):.2f}",
        f"{min(max(100 * mark - 0.8, 0), 98.4):.2f}",
    )


def _svg(kind: str, text: str, content: SafeString, height: int = 12) -> SafeString:
    return format_html(
        '<svg class="{0}" viewBox="0 0 100 {1}" preserveAspectRatio="none" role="img" aria-label="{2}">'
        '<title>{2}</title><rect x="0" y="{3}" width="100" height="{4}" class="bar-track"/>{5}</svg>',
        kind,
        height,
        text,
        0 if kind == "progress" else 5,
        height if kind == "progress" else 2,
        content,
    )
