"""`make serve`: PostgreSQL, Valkey, web ×2, workers ×2 and beat under a supervisor."""

import signal
import socket
import time
import urllib.error
from collections.abc import Callable
from typing import Any

import psutil

from tests.e2e.conftest import Installation
from tests.e2e.test_run_server import NEW_RUN


def wait_until(is_so: Callable[[], Any], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def is_answering(server: Installation) -> bool:
    """Whether requests succeed; one that a killed process had accepted is broken off."""
    try:
        return server.request("GET", "/api/v1/prompts")[0] == 200
    except (urllib.error.URLError, ConnectionError):
        return False


def execute(server: Installation) -> str:
    status, run = server.request("POST", "/api/v1/runs", NEW_RUN)
    assert (status, run["state"]) == (201, "queued")
    finished = server.wait_for_run(run["id"])
    assert (finished["state"], finished["passed"]) == ("finished", finished["total"])
    return run["id"]


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return probe.connect_ex(("127.0.0.1", port)) != 0


def test_it_survives_kills_stops_without_a_trace_and_finds_its_data_again(install):
    with install("serve", "--web", "2", "--workers", "2") as server:
        run_id = execute(server)
        victim = server.processes("process web")[0]
        victim.kill()
        victim.wait(10)
        wait_until(lambda: len(server.processes("process web")) == 2)
        assert all(is_answering(server) for _ in range(20))
        valkey = server.processes("valkey-server")[0]
        valkey.send_signal(signal.SIGSTOP)
        try:
            status, waiting = server.request("POST", "/api/v1/runs", NEW_RUN)
            assert (status, waiting["state"]) == (201, "queued")
        finally:
            valkey.send_signal(signal.SIGCONT)
        assert server.wait_for_run(waiting["id"])["state"] == "finished"
        everything = server.processes()
        assert server.stop() == 0
        assert psutil.wait_procs(everything, timeout=30)[1] == [] and is_free(server.port)
    with install("serve", "--web", "1", "--workers", "1") as again:
        assert again.secret == server.secret
        assert again.request("GET", f"/api/v1/runs/{run_id}")[1]["state"] == "finished"
