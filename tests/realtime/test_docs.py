"""The example that people copy works."""

import asyncio
import os
import re
import sys
from typing import Any
from uuid import UUID

from evaluations.events import RunEnded
from tests.realtime.clients import ROOT, WebProcess


async def test_the_python_example_follows_a_run(server: WebProcess, world: dict[str, Any]) -> None:
    code = re.findall(r"```python\n(.*?)```", (ROOT / "docs/realtime.md").read_text(), re.DOTALL)[0]
    environment = {
        "AUTOFORGE_KEY": world["viewer"],
        "AUTOFORGE_WS": f"ws://127.0.0.1:{server.port}/ws/v1/",
    }
    example = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, world["run"], env=os.environ | environment, stdout=asyncio.subprocess.PIPE
    )
    assert example.stdout is not None
    assert (await example.stdout.readline()).startswith(b"snapshot")
    ended = RunEnded(project_id=world["acme"], run_id=UUID(world["run"]), state="finished")
    await asyncio.to_thread(server.emit, [ended])
    assert await example.stdout.readline() == b"event ended {'state': 'finished'}\n"
    assert await asyncio.wait_for(example.wait(), 20) == 0
