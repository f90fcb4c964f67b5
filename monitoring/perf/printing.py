"""Reports for people: tables in the terminal."""

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table

from monitoring.perf.comparing import Change
from monitoring.perf.report import Figure, Latencies, Report


def print_report(report: Report, console: Console) -> None:
    """What was sent, for how long, from where, percentiles, figures, notes."""
    console.print(f"\n[bold]perf {report.command}[/bold]  {report.sent}")
    if origin := report.origin:
        console.print(
            f"{report.seconds:.1f} s, from {origin.host}: {origin.cores} × {origin.cpu},"
            f" {origin.memory_gib:g} GiB, Python {origin.versions['Python']}"
        )
    if report.cores:
        used = ", ".join(f"{who} {cores:.2f}" for who, cores in report.cores.items())
        console.print(f"CPU cores in use: {used}")
    if report.latencies:
        console.print(_latencies(report.latencies))
    if report.figures:
        console.print(_figures(report.figures))
    if report.problem:
        console.print(f"[red]{report.problem}[/red]")
    for note in report.notes:
        console.print(f"- {note}")


def print_summary(report: Report, console: Console) -> None:
    """All figures that have a bound, by measurement: target, measured, verdict."""
    table = Table("figure", "must", "aim", "measured", "verdict", title="Requirements")
    for part in report.parts:
        table.add_section()
        table.add_row(f"[bold]perf {part.command}[/bold]", "", "", "", "")
        if part.problem:
            table.add_row(f"  {part.problem}", "", "", "", "[red]NOT MEASURED[/red]")
        for figure in filter(_is_bounded, part.figures):
            table.add_row(f"  {figure.name}", *_bounds(figure), _value(figure), _verdict(figure))
    console.print(table)


def _is_bounded(figure: Figure) -> bool:
    return figure.must is not None or figure.aim is not None


def print_changes(changes: Iterable[Change], console: Console) -> None:
    """Now against a baseline."""
    table = Table("figure", "before", "now", "allowed to be worse by", "", title="Against the baseline")
    for change in changes:
        verdict = "[red]REGRESSION[/red]" if change.is_regression else "ok"
        numbers = (f"{value:,.2f} {change.unit}" for value in (change.before, change.now, change.allowed))
        table.add_row(change.name, *numbers, verdict)
    console.print(table)


def _latencies(rows: list[Latencies]) -> Table:
    table = Table("request", "count", "errors", "req/s", *(f"{name} ms" for name in rows[0].ms))
    for row in rows:
        errors = ", ".join(f"{count} × {error}" for error, count in row.errors.items()) or "0"
        values = (f"{value:,.1f}" for value in row.ms.values())
        table.add_row(row.kind, f"{row.count:,}", errors, f"{row.per_s:,.0f}", *values)
    return table


def _figures(figures: list[Figure]) -> Table:
    table = Table("figure", "measured", "must", "aim", "verdict")
    for figure in figures:
        verdict = _verdict(figure) if _is_bounded(figure) else ""
        table.add_row(figure.name, _value(figure), *_bounds(figure), verdict)
    return table


def _value(figure: Figure) -> str:
    noise = f" ± {figure.noise:,.3g}" if figure.noise else ""
    return f"{figure.value:,.6g}{noise} {figure.unit}".rstrip()


def _bounds(figure: Figure) -> tuple[str, str]:
    sign = "≤" if figure.better == "lower" else "≥"
    must, aim = (
        "" if bound is None else f"{sign} {bound:,g} {figure.unit}".rstrip()
        for bound in (figure.must, figure.aim)
    )
    return must, aim


def _verdict(figure: Figure) -> str:
    return figure.verdict if figure.suffices else f"[red]{figure.verdict}[/red]"
