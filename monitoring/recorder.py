"""The thread that records the history of the metrics, in one process of an installation."""

import logging
import os
import threading
import time

from django.db import connections

from monitoring.history import INTERVAL_S, record

log = logging.getLogger(__name__)


class Recorder:
    """One daemon thread that records for as long as the process lives; `start` may be called twice."""

    def __init__(self) -> None:
        self._pid = 0
        self._has_failed = False

    def start(self) -> None:
        if self._pid == os.getpid():
            return
        self._pid = os.getpid()
        threading.Thread(target=self._loop, name="recorder", daemon=True).start()

    def _loop(self) -> None:
        while True:
            # Every tier begins at a multiple of the interval; what has just started has no numbers yet.
            time.sleep(INTERVAL_S - time.time() % INTERVAL_S)
            try:
                record()
                self._has_failed = False
            except Exception as error:
                if not self._has_failed:  # a database may be away for long
                    log.warning("cannot record the history of the metrics, trying on: %s", error)
                self._has_failed = True
            finally:
                connections.close_all()


recorder = Recorder()
