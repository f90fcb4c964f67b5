"""The load generators behind `manage.py perf`: they ask a running installation as its users do."""
