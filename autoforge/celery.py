"""The Celery application: workers on any number of machines."""

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "autoforge.settings")

app = Celery("autoforge")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
