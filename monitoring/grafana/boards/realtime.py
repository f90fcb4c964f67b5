"""WebSockets: how many, what they are sent, who cannot keep up."""

from monitoring.grafana.panels import Dashboard, Panel, Row
from monitoring.grafana.promql import per_second, quantiles

_CLIENTS = Row(
    title="Clients",
    panels=[
        Panel(
            title="Open",
            about="WebSockets held by all web processes.",
            queries={"open": "sum(autoforge_websocket_connections)"},
            kind="stat", width=6, height=5,
        ),
        Panel(
            title="Part of the capacity",
            about="Above it new clients get 503.",
            queries={"taken": "autoforge:websockets_used:ratio"},
            kind="stat", unit="percentunit", width=6, height=5, warn=0.6, bad=0.8, maximum=1,
        ),
        Panel(
            title="Subscriptions",
            about="Topics that open WebSockets follow.",
            queries={"subscriptions": "sum(autoforge_websocket_subscriptions)"},
            kind="stat", width=6, height=5,
        ),
        Panel(
            title="Waiting frames",
            about="In the outboxes of clients that do not read fast enough.",
            queries={"frames": "sum(autoforge_websocket_outbox_frames)"},
            kind="stat", width=6, height=5, warn=1_000, bad=10_000,
        ),
        Panel(
            title="Open and capacity",
            about="WebSockets held, and how many could be.",
            queries={
                "open": "sum(autoforge_websocket_connections)",
                "capacity": "sum(autoforge_websocket_capacity)",
            },
            width=12,
        ),
        Panel(
            title="Refused and closed",
            about="Refused: over capacity, restarting or short of memory. Too slow: closed with 4408.",
            queries={
                "refused": per_second("autoforge_websocket_refused_total"),
                "too slow": per_second("autoforge_websocket_slow_closed_total"),
            },
            unit="ops", bad=1, width=12,
        ),
    ],
)  # fmt: skip

_MESSAGES = Row(
    title="Messages",
    panels=[
        Panel(
            title="Messages",
            about="Events to clients, what clients say, and what waits of those who say too much.",
            queries={
                "sent": per_second("autoforge_websocket_messages_sent_total"),
                "received": per_second("autoforge_websocket_messages_received_total"),
                "held back": per_second("autoforge_websocket_messages_held_back_total"),
            },
            unit="ops",
        ),
        Panel(
            title="Outbox depth",
            about="Frames that wait for slow clients, over all clients.",
            queries={"frames": "sum(autoforge_websocket_outbox_frames)"},
        ),
        Panel(
            title="Lost on the way",
            about="Events dropped before they reached a process, and times the channel layer was lost. "
            "Followers get a fresh snapshot instead.",
            queries={
                "events dropped": per_second("autoforge_websocket_events_dropped_total"),
                "channel layer lost": per_second("autoforge_websocket_bus_failures_total"),
            },
            unit="ops", bad=0.1,
        ),
    ],
)  # fmt: skip

_PROCESSES = Row(
    title="Web processes",
    panels=[
        Panel(
            title="Event loop lag",
            about="How late loops wake up: everything live is at least that late.",
            queries=quantiles("autoforge_event_loop_lag_seconds"),
            unit="s", warn=0.1, bad=0.25, width=12,
        ),
        Panel(
            title="Memory of web processes",
            about="Each open WebSocket takes some KiB.",
            queries={
                "{{pid}}": 'sum by (pid) (autoforge_process_resident_memory_bytes{kind="web"})',
                "limit": 'max(autoforge_process_memory_limit_bytes{kind="web"})',
            },
            unit="bytes", width=12,
        ),
    ],
)  # fmt: skip

BOARD = Dashboard(
    name="realtime",
    title="Realtime",
    about="WebSockets: how many, what they are sent, who cannot keep up.",
    rows=[_CLIENTS, _MESSAGES, _PROCESSES],
)
