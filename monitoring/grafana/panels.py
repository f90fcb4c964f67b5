"""Panels and dashboards as Grafana's JSON (schema version 39, Grafana 10 and later)."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

# Okabe and Ito's colours, which colour-blind people tell apart.
GREEN, YELLOW, RED = "#009E73", "#E69F00", "#D55E00"
WIDTH = 24
_DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
_CALM = {"color": GREEN, "value": None}


@dataclass(frozen=True, kw_only=True)
class Panel:
    """`queries` are PromQL by their legend, which may name labels as {{label}}."""

    title: str
    about: str
    queries: dict[str, str]
    unit: str = "short"
    kind: str = "timeseries"
    width: int = 8
    height: int = 8
    warn: float | None = None
    bad: float | None = None
    stacked: bool = False
    maximum: float | None = None
    is_better_high: bool = False

    def as_json(self, number: int, x: int, y: int) -> dict[str, Any]:
        """The panel at a place of the grid."""
        return {
            "id": number,
            "type": self.kind,
            "title": self.title,
            "description": self.about,
            "datasource": _DATASOURCE,
            "gridPos": {"h": self.height, "w": self.width, "x": x, "y": y},
            "targets": [
                self._target(chr(ord("A") + place), legend, query)
                for place, (legend, query) in enumerate(self.queries.items())
            ],
            "fieldConfig": {"defaults": self._defaults(), "overrides": []},
            "options": self._options(),
        }

    def _target(self, letter: str, legend: str, query: str) -> dict[str, Any]:
        target = {"refId": letter, "datasource": _DATASOURCE, "expr": query, "legendFormat": legend}
        if self.kind == "heatmap":
            return target | {"format": "heatmap"}
        return target | ({"instant": True, "range": False} if self.kind in _INSTANT else {})

    def _defaults(self) -> dict[str, Any]:
        defaults: dict[str, Any] = {
            "unit": self.unit,
            "min": 0,
            "thresholds": {"mode": "absolute", "steps": self._steps()},
            "color": {"mode": "palette-classic" if self.kind == "timeseries" else "thresholds"},
        }
        if self.maximum is not None:
            defaults["max"] = self.maximum
        if self.kind == "timeseries":
            defaults["custom"] = {
                "lineWidth": 2,
                "fillOpacity": 25 if self.stacked else 5,
                "showPoints": "never",
                "stacking": {"mode": "normal" if self.stacked else "none"},
                "thresholdsStyle": {"mode": "off" if self.bad is None else "line"},
            }
        return defaults

    def _steps(self) -> list[dict[str, Any]]:
        if self.bad is None:
            return [_CALM]
        if self.is_better_high:
            middle = [] if self.warn is None else [{"color": YELLOW, "value": self.bad}]
            return [{"color": RED, "value": None}, *middle, {"color": GREEN, "value": self.warn or self.bad}]
        middle = [] if self.warn is None else [{"color": YELLOW, "value": self.warn}]
        return [_CALM, *middle, {"color": RED, "value": self.bad}]

    def _options(self) -> dict[str, Any]:
        reduced = {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}}
        match self.kind:
            case "stat":
                return reduced | {"colorMode": "value", "graphMode": "area"}
            case "bargauge":
                return reduced | {"orientation": "horizontal", "displayMode": "basic", "showUnfilled": True}
            case "heatmap":
                return {"calculate": False, "yAxis": {"unit": self.unit}, "color": {"scheme": "Viridis"}}
        legend = {"displayMode": "table", "placement": "bottom", "calcs": ["lastNotNull", "max"]}
        return {"legend": legend, "tooltip": {"mode": "multi", "sort": "desc"}}


_INSTANT = ("bargauge",)


@dataclass(frozen=True, kw_only=True)
class Row:
    """Panels below a heading, from left to right; what does not fit begins a new line."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True, kw_only=True)
class Dashboard:
    """`name` is its file; `title` what Grafana calls it."""

    name: str
    title: str
    about: str
    rows: Sequence[Row]
    tags: Sequence[str] = field(default=("autoforge",))

    def as_json(self) -> dict[str, Any]:
        """What Grafana imports."""
        return {
            "uid": f"autoforge-{self.name}",
            "title": f"AutoForge / {self.title}",
            "description": self.about,
            "tags": list(self.tags),
            "schemaVersion": 39,
            "version": 1,
            "editable": True,
            "graphTooltip": 1,
            "timezone": "browser",
            "refresh": "10s",
            "time": {"from": "now-1h", "to": "now"},
            "annotations": {"list": [_ALERTS]},
            "templating": {"list": [_DATASOURCES]},
            "links": [_OTHERS],
            "panels": self._panels(),
        }

    def _panels(self) -> list[dict[str, Any]]:
        panels: list[dict[str, Any]] = []
        y = 0
        for row in self.rows:
            panels.append(_heading(row.title, len(panels) + 1, y))
            x, y, height = 0, y + 1, 0
            for panel in row.panels:
                if x + panel.width > WIDTH:
                    x, y, height = 0, y + height, 0
                panels.append(panel.as_json(len(panels) + 1, x, y))
                x, height = x + panel.width, max(height, panel.height)
            y += height
        return panels


def _heading(title: str, number: int, y: int) -> dict[str, Any]:
    place = {"h": 1, "w": WIDTH, "x": 0, "y": y}
    return {"id": number, "type": "row", "title": title, "collapsed": False, "gridPos": place, "panels": []}


_DATASOURCES = {
    "name": "datasource",
    "label": "Prometheus",
    "type": "datasource",
    "query": "prometheus",
    "current": {},
    "hide": 0,
    "refresh": 1,
    "regex": "",
}
_ALERTS = {
    "name": "Alerts",
    "enable": True,
    "iconColor": RED,
    "datasource": _DATASOURCE,
    "expr": 'ALERTS{alertstate="firing", alertname=~"AutoForge.*"}',
    "titleFormat": "{{alertname}}",
    "step": "60s",
}
_OTHERS = {
    "type": "dashboards",
    "title": "AutoForge",
    "tags": ["autoforge"],
    "asDropdown": True,
    "includeVars": True,
    "keepTime": True,
    "targetBlank": False,
    "icon": "external link",
    "tooltip": "",
    "url": "",
}
