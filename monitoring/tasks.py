"""Housekeeping as a Celery task, which beat sends, and as a thread where there is no Celery."""

import os
import threading
import time

from celery import shared_task
from django.conf import settings
from django.db import connections

from autoforge.housekeeping import keep_house

# A process that has just started has better things to do.
FIRST_AFTER_S = 60.0


@shared_task(name="monitoring.keep_house", ignore_result=True)
def keep_house_task() -> None:
    """What AUTOFORGE_KEEP_…_DAYS says."""
    keep_house()


class _Housekeeper:
    """One daemon thread a process; `start` may be called again after a fork."""

    def __init__(self) -> None:
        self._pid = 0

    def start(self) -> None:
        if self._pid == os.getpid() or not settings.HOUSEKEEPING_S:
            return
        self._pid = os.getpid()
        threading.Thread(target=self._work, name="housekeeper", daemon=True).start()

    def _work(self) -> None:
        time.sleep(min(FIRST_AFTER_S, settings.HOUSEKEEPING_S))
        while True:
            keep_house()
            connections.close_all()
            time.sleep(settings.HOUSEKEEPING_S)


housekeeper = _Housekeeper()
