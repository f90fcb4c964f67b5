"""The fake vendor alone, as load generators and kill tests start it."""

import json
import subprocess
import sys
import urllib.request

from prompts.llm import client
from tests.fake_vendor import FakeVendor
from tests.prompts.llm.conftest import Ask


def test_it_runs_alone_and_counts_its_calls():
    command = [sys.executable, "-m", "tests.fake_vendor", "--port", "0", "--latency-ms", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        try:
            body = json.dumps({"model": "m", "messages": []}).encode()
            for _ in range(2):
                with urllib.request.urlopen(f"{url}/v1/chat/completions", body, timeout=10) as response:
                    answer = json.load(response)
            with urllib.request.urlopen(f"{url}/stats", timeout=10) as response:
                stats = json.load(response)
        finally:
            process.terminate()
    assert answer["choices"][0]["message"]["content"] == "Hello world"
    assert (stats["calls"], stats["distinct"], stats["repeated"], stats["in_flight"]) == (2, 1, 1, 0)


async def test_it_keeps_what_it_was_asked(vendor: FakeVendor, ask: Ask):
    await client.complete(ask("who?", cache="no-store"))
    [call] = vendor.calls
    assert call.body["messages"] == [{"role": "user", "content": "who?"}]
    assert vendor.stats()["calls"] == 1
