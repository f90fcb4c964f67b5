"""`make run`: one process, SQLite, nothing configured."""

import json
import os
import signal

from websockets.sync.client import connect

NEW_RUN = {
    "prompts": [{"name": "support/classify", "version": 2}],
    "models": ["simulated"],
    "dataset": "support",
    "scorers": [{"type": "icontains", "value": "{{ expected }}"}],
}


def test_it_prints_the_logins_serves_the_sample_and_streams_a_run(install):
    with install("run_server") as server:
        assert "/admin/  admin / " in server.output
        assert f"PORT={server.port}" in (server.var / "serve.env").read_text()
        status, run = server.request("POST", "/api/v1/runs", NEW_RUN)
        assert (status, run["state"]) == (201, "queued")
        headers = {"Authorization": f"Bearer {server.secret}"}
        with connect(f"ws://127.0.0.1:{server.port}/ws/v1/", additional_headers=headers) as socket:
            socket.send(json.dumps({"type": "subscribe", "topic": f"runs.{run['id']}"}))
            assert '"type":"snapshot"' in socket.recv(timeout=30)
            while '"ended"' not in socket.recv(timeout=30):
                pass
        assert server.wait_for_run(run["id"])["passed"] == run["total"]
        assert server.stop() == 0


def test_a_run_that_was_killed_is_taken_up_at_the_next_start(install):
    with install("run_server") as server:
        _, run = server.request("POST", "/api/v1/runs", NEW_RUN | {"concurrency": 2})
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait()
    with install("run_server") as server:
        finished = server.wait_for_run(run["id"])
        assert (finished["state"], finished["passed"]) == ("finished", finished["total"])
        results = server.request("GET", f"/api/v1/runs/{run['id']}/results?limit=200")[1]["items"]
        assert len({result["case"] for result in results}) == len(results) == finished["total"]
