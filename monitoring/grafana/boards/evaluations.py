"""Runs: how many, how far, how well they use their concurrency, and their budgets."""

from monitoring.grafana.panels import Dashboard, Panel, Row
from monitoring.grafana.promql import mean, per_second, quantile, quantiles

_EFFICIENCY = "autoforge_run_parallel_efficiency_ratio"

_NOW = Row(
    title="Right now",
    panels=[
        Panel(
            title="Running",
            about="Runs that are being executed.",
            queries={"running": 'max(autoforge_runs{state="running"})'},
            kind="stat", width=4, height=5,
        ),
        Panel(
            title="Queued",
            about="Runs that wait for a worker.",
            queries={"queued": 'max(autoforge_runs{state="queued"})'},
            kind="stat", width=4, height=5, warn=5, bad=20,
        ),
        Panel(
            title="Longest wait",
            about="Of the runs that wait now.",
            queries={"wait": "max(autoforge_run_queue_wait_seconds)"},
            kind="stat", unit="s", width=4, height=5, warn=30, bad=120,
        ),
        Panel(
            title="Cells to do",
            about="Of queued and running runs together.",
            queries={"cells": "max(autoforge_run_cells_open)"},
            kind="stat", width=4, height=5,
        ),
        Panel(
            title="Workers",
            about="Processes that drain runs, each counted once a run.",
            queries={"workers": "max(autoforge_run_workers)"},
            kind="stat", width=4, height=5,
        ),
        Panel(
            title="Parallel efficiency",
            about="Mean of the runs that ended meanwhile: (sum of call times / concurrency) / wall time.",
            queries={
                "efficiency": f"sum(increase({_EFFICIENCY}_sum[$__range])) "
                f"/ sum(increase({_EFFICIENCY}_count[$__range]))"
            },
            kind="stat", unit="percentunit", width=4, height=5,
            warn=0.85, bad=0.6, is_better_high=True, maximum=1,
        ),
    ],
)  # fmt: skip

_WORK = Row(
    title="Work",
    panels=[
        Panel(
            title="Cells by state",
            about="Results recorded a second. An error is the vendor's or the judge's, not a failed answer.",
            queries={"{{state}}": per_second("autoforge_run_results_total", "state")},
            unit="ops", stacked=True, width=12,
        ),
        Panel(
            title="Runs by state",
            about="All runs there are.",
            queries={"{{state}}": "max by (state) (autoforge_runs)"},
            stacked=True, width=12,
        ),
        Panel(
            title="Runs that ended",
            about="A second, by the state they ended in.",
            queries={"{{state}}": per_second("autoforge_runs_ended_total", "state")},
            unit="ops", width=8,
        ),
        Panel(
            title="Duration",
            about="Of the runs that ended: how long they were worked on.",
            queries=quantiles("autoforge_run_seconds"),
            unit="s", width=8,
        ),
        Panel(
            title="Parallel efficiency",
            about="Of the runs that ended and called models.",
            queries={"mean": mean(_EFFICIENCY), "worst tenth": quantile(0.1, _EFFICIENCY)},
            unit="percentunit", warn=0.85, bad=0.6, is_better_high=True, maximum=1, width=8,
        ),
    ],
)  # fmt: skip

_BUDGETS = Row(
    title="Budgets of queued and running runs",
    panels=[
        Panel(
            title="Budget and spending",
            about="Sums over the runs that have a budget.",
            queries={
                "budget": "max(autoforge_run_budget_usd)",
                "spent": "max(autoforge_run_budget_spent_usd)",
            },
            unit="currencyUSD", width=12,
        ),
        Panel(
            title="Nearest to its end",
            about="The largest part of a budget that is spent.",
            queries={"spent": "max(autoforge_run_budget_used_ratio)"},
            kind="stat", unit="percentunit", width=6, warn=0.8, bad=0.95, maximum=1,
        ),
        Panel(
            title="Will not suffice",
            about="Runs whose cells so far cost more than their budget gives to each cell.",
            queries={"runs": "max(autoforge_run_budget_overruns_expected)"},
            kind="stat", width=6, bad=1,
        ),
    ],
)  # fmt: skip

BOARD = Dashboard(
    name="evaluations",
    title="Evaluations",
    about="Runs: how many, how far, how well they use their concurrency, and their budgets.",
    rows=[_NOW, _WORK, _BUDGETS],
)
