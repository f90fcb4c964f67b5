"""What models are asked, how fast they answer, and what that costs."""

from monitoring.grafana.panels import Dashboard, Panel, Row
from monitoring.grafana.promql import per_second, quantile, quantiles, share_of_hits

_COST, _SAVED = "autoforge_model_cost_usd_total", "autoforge_model_saved_usd_total"
_CALLS = "autoforge_model_calls_total"

_MONEY = Row(
    title="Money",
    panels=[
        Panel(
            title="Cost",
            about="Within the time range shown.",
            queries={"cost": f"sum(increase({_COST}[$__range]))"},
            kind="stat", unit="currencyUSD", width=6, height=5,
        ),
        Panel(
            title="Saved",
            about="What cached and shared answers would have cost, within the time range shown.",
            queries={"saved": f"sum(increase({_SAVED}[$__range]))"},
            kind="stat", unit="currencyUSD", width=6, height=5,
        ),
        Panel(
            title="Answered from the cache",
            about="Part of the questions that were answered before.",
            queries={"hits": share_of_hits("llm_responses")},
            kind="stat", unit="percentunit", width=6, height=5, bad=0.8, is_better_high=True, maximum=1,
        ),
        Panel(
            title="Failed calls",
            about="The provider with the largest part of calls that failed, over 5 minutes.",
            queries={"failed": "max(autoforge:model_errors:ratio_rate5m)"},
            kind="stat", unit="percentunit", width=6, height=5, warn=0.02, bad=0.1,
        ),
        Panel(
            title="Cost an hour",
            about="At the pace of the last minutes, by provider.",
            queries={"{{provider}}": f"3600 * {per_second(_COST, 'provider')}"},
            unit="currencyUSD", stacked=True, width=12,
        ),
        Panel(
            title="Saved an hour",
            about="At the pace of the last minutes, by provider.",
            queries={"{{provider}}": f"3600 * {per_second(_SAVED, 'provider')}"},
            unit="currencyUSD", stacked=True, width=12,
        ),
    ],
)  # fmt: skip

_SPEED = Row(
    title="Calls",
    panels=[
        Panel(
            title="Calls by provider",
            about="Attempts a second.",
            queries={"{{provider}}": per_second(_CALLS, "provider")},
            unit="ops", stacked=True,
        ),
        Panel(
            title="Calls that failed",
            about="By the reason. rate_limited: lower the endpoint's limits. timeout: the vendor is slow.",
            queries={"{{provider}} {{outcome}}": per_second(_CALLS + '{outcome!="ok"}', "provider, outcome")},
            unit="ops",
        ),
        Panel(
            title="Tokens",
            about="Read (input) and written (output) by models.",
            queries={"{{direction}}": per_second("autoforge_model_tokens_total", "direction")},
            unit="short", stacked=True,
        ),
        Panel(
            title="Duration, P95",
            about="Of successful calls.",
            queries={"{{provider}}": quantile(0.95, "autoforge_model_call_seconds", "provider")},
            unit="s", width=12,
        ),
        Panel(
            title="Time to the first token, P95",
            about="Of streamed calls: what a reader waits for.",
            queries={"{{provider}}": quantile(0.95, "autoforge_model_first_token_seconds", "provider")},
            unit="s", width=12,
        ),
    ],
)  # fmt: skip

_GATEWAY = Row(
    title="Gateway (/v1/chat/completions)",
    panels=[
        Panel(
            title="Own overhead",
            about="What the gateway itself adds to the model's time; of a stream, until the model is asked.",
            queries=quantiles("autoforge_gateway_overhead_seconds"),
            unit="s", warn=0.005, bad=0.02, width=12,
        ),
        Panel(
            title="Fallbacks",
            about="Calls handed to the next endpoint, by how one failed.",
            queries={"{{code}}": per_second("autoforge_gateway_fallbacks_total", "code")},
            unit="ops", width=12,
        ),
    ],
)  # fmt: skip

BOARD = Dashboard(
    name="models",
    title="Models and cost",
    about="What models are asked, how fast they answer, and what that costs.",
    rows=[_MONEY, _SPEED, _GATEWAY],
)
