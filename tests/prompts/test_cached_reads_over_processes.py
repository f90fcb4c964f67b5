"""Two web processes that share a Redis: a change made in one is seen in the other within a second."""

import time
from typing import Any

import msgspec

from tests.realtime.clients import WebProcess
from tests.realtime.conftest import pair, redis_url, var_dir, world

__all__ = ["pair", "redis_url", "var_dir", "world"]

Pair = tuple[WebProcess, WebProcess]
PROMPT = "/api/v1/prompts/shared"


class Caller:
    """An editor who asks one process."""

    def __init__(self, process: WebProcess, secret: str) -> None:
        self._process = process
        self._headers = {"Authorization": f"Bearer {secret}", "Content-Type": "application/json"}

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        content = b"" if body is None else msgspec.json.encode(body)
        return self._process.request(method, path, content, **self._headers | headers)

    def template(self, **headers: str) -> str:
        return self.send("GET", f"{PROMPT}?label=production", **headers)["template"]


def test_a_label_that_moves_in_one_process_moves_in_the_other(pair: Pair, world: dict[str, Any]) -> None:
    here, there = (Caller(process, world["editor"]) for process in pair)
    new = {"name": "shared", "type": "text", "template": "v1", "labels": ["production"]}
    here.send("POST", "/api/v1/prompts", new)
    here.send("POST", f"{PROMPT}/versions", {"template": "v2"})
    versions = {1: "v1", 2: "v2"}
    for writer, reader, number in ((here, there, 2), (there, here, 1)):
        reader.template()
        assert reader.template() == writer.template() != versions[number]
        writer.send("PUT", f"{PROMPT}/labels/production", {"version": number})
        assert writer.template() == versions[number]
        assert reader.template(**{"Cache-Control": "no-cache"}) == versions[number]
        time.sleep(1)
        assert reader.template() == versions[number]


def test_a_reader_who_never_stops_sees_the_change_within_a_second(pair: Pair, world: dict[str, Any]) -> None:
    here, there = (Caller(process, world["editor"]) for process in pair)
    new = {"name": "busy", "type": "text", "template": "v1", "labels": ["production"]}
    here.send("POST", "/api/v1/prompts", new)
    path = "/api/v1/prompts/busy"
    there.send("GET", path)
    here.send("POST", f"{path}/versions", {"template": "v2", "labels": ["production"]})
    committed = time.monotonic()
    while (asked := time.monotonic()) < committed + 2:
        if there.send("GET", path)["template"] == "v2":
            return
        assert asked < committed + 1, "still the old one, a second after the commit"
    raise AssertionError("the reader never asked in time")
