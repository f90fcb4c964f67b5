"""Grafana dashboards: `python -m monitoring.grafana` writes the JSON files beside this one."""
