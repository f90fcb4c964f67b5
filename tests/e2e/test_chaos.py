"""Processes die at random while a run is executed: it finishes, with every cell exactly once."""

import random
import signal
import time
import urllib.error
from dataclasses import dataclass, field
from typing import Any

import msgspec
import psutil
import psycopg
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


@dataclass
class Havoc:
    """When caches were killed, and workers, with the calls that each may have been making."""

    caches: list[float] = field(default_factory=list)
    workers: list[tuple[float, int]] = field(default_factory=list)

    @property
    def most_again(self) -> int:
        """How many calls may have been made again: a call is over when its answer is in the cache."""
        return sum(slots * (2 if self._is_without_cache(at) else 1) for at, slots in self.workers)

    def _is_without_cache(self, killed_at: float) -> bool:
        """Then, or when its cells were taken over: answers not yet written, a batch of 100 ms, are lost too.

        A call takes longer than that, so they are no more than its slots.
        """
        return any(at > killed_at - WITHOUT_CACHE_S for at in self.caches)


def kill_one(server: Installation, words: str, run_id: str, chance: random.Random) -> int | None:
    """kill -9 of the busiest; the calls that it may be making, None when none of that kind lives."""
    victims = server.processes(words)
    if not victims:
        return None
    chance.shuffle(victims)
    victim = max(victims, key=lambda process: slots_of(server, run_id, process.pid))
    victim.suspend()  # what it has told is from now on what it does
    slots = slots_of(server, run_id, victim.pid)
    victim.kill()
    return slots


def slots_of(server: Installation, run_id: str, pid: int) -> int:
    """The calls at once that a process has told it may make; 0 for one that does not drain the run."""
    known = dict(line.split("=", 1) for line in (server.var / "serve.env").read_text().splitlines())
    asked = "SELECT slots FROM evaluations_runworker WHERE run_id = %s AND split_part(name, '~', 3) = %s"
    with psycopg.connect(known["DATABASE_URL"]) as connection:
        return sum(slots for (slots,) in connection.execute(asked, [run_id, str(pid)]))


def wreak_havoc(server: Installation, run_id: str, chance: random.Random) -> Havoc:
    """A kill a second while the run is executed."""
    havoc = Havoc()
    for words in chance.sample(KILLS, len(KILLS)):
        time.sleep(PAUSE_S)
        if insist(server, "GET", f"/api/v1/runs/{run_id}")["state"] == "finished":
            break
        slots = kill_one(server, words, run_id, chance)
        if slots is not None and words == "valkey-server":
            havoc.caches.append(time.monotonic())
        elif slots:
            havoc.workers.append((time.monotonic(), slots))
    return havoc


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
        vendor.wait_until(lambda vendor: vendor.count >= CONCURRENCY, timeout_s=60)
        havoc = wreak_havoc(server, run["id"], chance)
        finished = server.wait_for_run(run["id"], timeout_s=60)
        assert havoc.workers, "the run ended before a worker was killed"
        assert (finished["state"], finished["total"], finished["done"]) == ("finished", CASES, CASES)
        assert (finished["passed"], finished["failed"], finished["errors"]) == (CASES, 0, 0)
        rows = results_of(server, run["id"])
        assert len({row["case"] for row in rows}) == len(rows) == CASES
        assert all(slots <= CONCURRENCY for _, slots in havoc.workers)
        assert 0 <= vendor.count - CASES <= havoc.most_again, havoc
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
