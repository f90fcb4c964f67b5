"""What this app counts, in Prometheus' default registry (and so in /metrics, summed over processes)."""

from prometheus_client import Counter, Gauge

connections = Gauge("autoforge_websocket_connections", "Open WebSockets.", multiprocess_mode="livesum")
capacity = Gauge(
    "autoforge_websocket_capacity",
    "WebSockets that the web processes may hold.",
    multiprocess_mode="livesum",
)
subscriptions = Gauge(
    "autoforge_websocket_subscriptions", "Topics that open WebSockets follow.", multiprocess_mode="livesum"
)
outbox_frames = Gauge(
    "autoforge_websocket_outbox_frames", "Frames that wait for slow clients.", multiprocess_mode="livesum"
)
refused = Counter("autoforge_websocket_refused", "Handshakes refused over capacity.")
received = Counter("autoforge_websocket_messages_received", "Messages from clients.")
held_back = Counter("autoforge_websocket_messages_held_back", "Messages of clients that say too much.")
sent = Counter("autoforge_websocket_messages_sent", "Events handed to clients.")
slow_closed = Counter(
    "autoforge_websocket_slow_closed", "Clients closed because they did not keep up (4408)."
)
events_dropped = Counter("autoforge_websocket_events_dropped", "Events lost on the way; snapshots follow.")
bus_failures = Counter("autoforge_websocket_bus_failures", "Times the channel layer was lost.")
