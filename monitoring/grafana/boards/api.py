"""Which views are asked, how fast they answer, and how they fail."""

from monitoring.grafana.panels import Dashboard, Panel, Row
from monitoring.grafana.promql import mean, per_second, quantile, quantiles

_SECONDS = "autoforge_http_request_seconds"
_RESPONSES = "autoforge_http_responses_total"
_SERVER_ERRORS = _RESPONSES + '{status=~"5.."}'
_REFUSALS = _RESPONSES + '{status=~"4.."}'
_OWN = '{handler="sync", view!~"health-.*|metrics"}'

_LATENCY = Row(
    title="Latency",
    panels=[
        Panel(
            title="Percentiles",
            about="Requests that wait for no model: the wait for a thread included, the network not.",
            queries=quantiles(_SECONDS, where=_OWN),
            unit="s", warn=0.1, bad=0.2, width=12,
        ),
        Panel(
            title="Distribution",
            about="How many requests took how long. The brighter, the more.",
            queries={"{{le}}": f"sum by (le) (increase({_SECONDS}_bucket{_OWN}[$__rate_interval]))"},
            kind="heatmap", unit="s", width=12,
        ),
        Panel(
            title="P95 by view",
            about="The ten slowest views that wait for no model.",
            queries={"{{view}}": f"topk(10, {quantile(0.95, _SECONDS, 'view', where=_OWN)})"},
            unit="s", warn=0.1, bad=0.2, width=12,
        ),
        Panel(
            title="Views that wait for models, P95",
            about="Completions, and the checks of model endpoints: as slow as their model.",
            queries={"{{view}}": quantile(0.95, _SECONDS, "view", where='{handler="async"}')},
            unit="s", width=12,
        ),
    ],
)  # fmt: skip

_TRAFFIC = Row(
    title="Traffic",
    panels=[
        Panel(
            title="Requests by view",
            about="The ten views asked most often.",
            queries={"{{view}} {{method}}": f"topk(10, {per_second(_RESPONSES, 'view, method')})"},
            unit="reqps", stacked=True, width=12,
        ),
        Panel(
            title="Time spent by view",
            about="Seconds of requests a second: where work would pay off.",
            queries={"{{view}}": f"topk(10, {per_second(f'{_SECONDS}_sum{_OWN}', 'view')})"},
            unit="s", stacked=True, width=12,
        ),
        Panel(
            title="In flight",
            about="Requests being answered now, those that wait for models among them.",
            queries={"requests": "sum(autoforge_http_requests_in_flight)"},
            width=12,
        ),
        Panel(
            title="Mean latency by method",
            about="Of requests that wait for no model.",
            queries={"{{method}}": mean(_SECONDS, "method", where=_OWN)},
            unit="s", bad=0.2, width=12,
        ),
    ],
)  # fmt: skip

_FAILURES = Row(
    title="Failures and refusals",
    panels=[
        Panel(
            title="Server errors by view",
            about="500: a bug, see the log. 502: a vendor failed. 503: full, or a service is away.",
            queries={"{{status}} {{view}}": per_second(_SERVER_ERRORS, "status, view")},
            unit="reqps",
        ),
        Panel(
            title="Refused by view",
            about="4xx: wrong keys (401), what is not there (404), bad input (422), limits (429).",
            queries={"{{status}} {{view}}": f"topk(10, {per_second(_REFUSALS, 'status, view')})"},
            unit="reqps",
        ),
        Panel(
            title="Rate limits",
            about="Requests over a limit, by the limit: of a key, a user, a route, or failed logins.",
            queries={"{{policy}}": per_second("autoforge_rate_limit_refused_total", "policy")},
            unit="reqps",
        ),
        Panel(
            title="Timeouts",
            about="What waited in vain.",
            queries={"{{kind}}": "sum by (kind) (autoforge:timeouts:rate5m)"},
            unit="ops", bad=0.1,
        ),
        Panel(
            title="Clients that left",
            about="They closed the connection before their answer was there.",
            queries={"left": per_second("autoforge_http_clients_left_total")},
            unit="reqps",
        ),
        Panel(
            title="Error rate",
            about="Part of the answers with a status of 500 and above, over 5 minutes.",
            queries={"errors": "autoforge:http_errors:ratio_rate5m"},
            unit="percentunit", warn=0.001, bad=0.01,
        ),
    ],
)  # fmt: skip

BOARD = Dashboard(
    name="api",
    title="API",
    about="Which views are asked, how fast they answer, and how they fail.",
    rows=[_LATENCY, _TRAFFIC, _FAILURES],
)
