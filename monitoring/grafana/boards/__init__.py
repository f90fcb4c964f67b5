"""Every dashboard, in the order in which an operator looks at them."""

from monitoring.grafana.boards import api, database_and_cache, evaluations, models, overview, realtime
from monitoring.grafana.panels import Dashboard

BOARDS: tuple[Dashboard, ...] = (
    overview.BOARD,
    api.BOARD,
    models.BOARD,
    evaluations.BOARD,
    realtime.BOARD,
    database_and_cache.BOARD,
)
