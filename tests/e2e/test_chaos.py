"""Processes die at random while a run is executed: it finishes, with every cell exactly once."""

import random
import signal
import time
import urllib.error
from typing import Any

import msgspec
import psutil
import pytest

from tests.e2e.conftest import Installation
from tests.fake_vendor import FakeVendor, Reply, fake_vendor

CASES, CONCURRENCY = 500, 12
KILLS = ["process worker"] * 4 + ["process web"] * 2 + ["valkey-server"] * 2 + ["process beat"]
PAUSE_S = 1.0
# Until a Valkey that was killed is back, and asked again.
WITHOUT_CACHE_S = 4.0


def insist(server: Installation, method: str, path: str, body: Any = None) -> Any:
    """The answer of a request that is repeated while the process that took it may have been killed."""
    deadline = time.monotonic() + 20
    while True:
        try:
            status, answer = server.request(method, path, body)
            assert status in (200, 201), (status, answer)
            return answer
        except (urllib.error.URLError, ConnectionError):
            assert time.monotonic() < deadline
            time.sleep(0.2)


def prepare(server: Installation, vendor: FakeVendor) -> dict[str, Any]:
    """The body of a run of CASES cells at the vendor."""
    insist(server, "POST", "/api/v1/prompts", {"name": "q", "type": "text", "template": "{{ q }}"})
    model = {"name": "fake", "provider": "openai", "model": "m", "base_url": vendor.base_url}
    insist(server, "POST", "/api/v1/models", model)
    insist(server, "POST", "/api/v1/datasets", {"name": "many"})
    cases = [{"vars": {"q": f"question {number}"}} for number in range(CASES)]
    insist(server, "POST", "/api/v1/datasets/many/cases", cases)
    return {"prompts": [{"name": "q"}], "models": ["fake"], "dataset": "many", "concurrency": CONCURRENCY}


def statuses_until_ready(server: Installation, path: str) -> set[int]:
    """What is answered while `path` is asked for again and again, until the server is ready."""
    statuses = set()
    while server.request("GET", "/health/ready")[0] != 200:
        status, answer = server.request("GET", path)
        assert status == 200 or msgspec.json.decode(answer)["code"] == "unavailable", (status, answer)
        statuses.add(status)
    return statuses


def kill_one(server: Installation, words: str, chance: random.Random) -> bool:
    """kill -9 of one of its processes; False when none of that kind lives at the moment."""
    victims = server.processes(words)
    if victims:
        chance.choice(victims).kill()
    return bool(victims)


def wreak_havoc(server: Installation, run_id: str, chance: random.Random) -> int:
    """A kill a second while the run is executed. How many calls may have been made again for that."""
    again, valkey_killed_at = 0, -WITHOUT_CACHE_S
    for words in chance.sample(KILLS, len(KILLS)):
        time.sleep(PAUSE_S)
        if insist(server, "GET", f"/api/v1/runs/{run_id}")["state"] == "finished":
            break
        if not kill_one(server, words, chance):
            continue
        if words == "valkey-server":
            valkey_killed_at = time.monotonic()
        elif words == "process worker":
            # Without a cache also what was answered and not yet written: a batch of at most 100 ms.
            is_cached = time.monotonic() - valkey_killed_at > WITHOUT_CACHE_S
            again += CONCURRENCY * (1 if is_cached else 2)
    return again


def results_of(server: Installation, run_id: str) -> list[dict[str, Any]]:
    rows, cursor = [], ""
    while cursor is not None:
        page = insist(server, "GET", f"/api/v1/runs/{run_id}/results?limit=200&cursor={cursor}")
        rows, cursor = rows + page["items"], page["next_cursor"]
    return rows


def test_a_run_outlives_its_processes(install):
    chance = random.Random(20)
    with fake_vendor(Reply(delay_s=0.25)) as vendor, install("serve", "--workers", "2") as server:
        run = insist(server, "POST", "/api/v1/runs", prepare(server, vendor))
        most_again = wreak_havoc(server, run["id"], chance)
        finished = server.wait_for_run(run["id"], timeout_s=60)
        assert most_again > 0, "the run ended before a worker was killed"
        assert (finished["state"], finished["total"], finished["done"]) == ("finished", CASES, CASES)
        assert (finished["passed"], finished["failed"], finished["errors"]) == (CASES, 0, 0)
        rows = results_of(server, run["id"])
        assert len({row["case"] for row in rows}) == len(rows) == CASES
        assert 0 <= vendor.count - CASES <= most_again
        assert vendor.max_in_flight <= 2 * CONCURRENCY
        survivors = server.processes()
        assert server.stop() == 0
        assert psutil.wait_procs(survivors, timeout=30)[1] == []


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["restarted", "killed"])
def test_a_run_outlives_its_database(install, how):
    with fake_vendor(Reply(delay_s=0.25)) as vendor, install("serve") as server:
        run = insist(server, "POST", "/api/v1/runs", prepare(server, vendor))
        vendor.wait_until(lambda vendor: vendor.count >= CASES // 4, timeout_s=60)
        (postgres,) = (one for one in server.processes("postgres") if "-D" in one.cmdline())
        postgres.send_signal(how)
        postgres.wait(20)
        path = f"/api/v1/runs/{run['id']}"
        assert statuses_until_ready(server, path) <= {200, 503}
        assert all(server.request("GET", path)[0] == 200 for _ in range(100))
        finished = server.wait_for_run(run["id"], timeout_s=60)
        assert (finished["state"], finished["done"], finished["passed"]) == ("finished", CASES, CASES)
        assert len({row["case"] for row in results_of(server, run["id"])}) == CASES
        assert vendor.count == CASES
