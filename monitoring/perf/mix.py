"""The REST traffic of a working day: mostly prompt reads, some results, a few renders and writes."""

import asyncio
import itertools
import random
import uuid
from collections.abc import Iterator
from typing import Any

from monitoring.perf.api import Api
from monitoring.perf.client import Client
from monitoring.perf.load import Prepared

PROMPTS = 200
SHARES = {"read": 0.80, "result": 0.10, "render": 0.05, "write": 0.05}
_FOLDER, _DATASET, _MODEL = "perf/mix", "perf-mix", "perf-instant"
_PROMPT, _CASES = "perf/mix-run", 100
_SEED = 7
_RULES = "Answer in one sentence. Name the product. Never promise a refund. " * 6


def prompt_name(number: int) -> str:
    return f"{_FOLDER}/{number:03}"


def template(note: str) -> list[dict[str, str]]:
    """A chat of about 500 bytes with two variables."""
    return [
        {"role": "system", "content": f"You help the customers of {{{{ shop }}}}. {_RULES}{note}"},
        {"role": "user", "content": "{{ message }}"},
    ]


async def prepare(api: Api, prompts: int = PROMPTS) -> str:
    """Make what the mix asks for, where it is missing; the id of a finished run to read."""
    existing, slots = await api.names(f"prompts?name={_FOLDER}/"), asyncio.Semaphore(8)

    async def one(name: str) -> None:
        async with slots:
            await _create_prompt(api, name)

    names = {prompt_name(number) for number in range(prompts)}
    await asyncio.gather(*(one(name) for name in sorted(names - existing)))
    return await _ensure_run(api)


async def _create_prompt(api: Api, name: str) -> None:
    first = {"name": name, "type": "chat", "template": template(""), "labels": ["production"]}
    await api.create("prompts", first)
    await api.ask("POST", f"prompts/{name}/versions", {"template": template("Be brief.")})


async def _ensure_run(api: Api) -> str:
    lines = b"\n".join(b'{"input":"question %d","ideal":"question"}' % number for number in range(_CASES))
    await api.ensure_dataset(_DATASET, lines)
    runs = (await api.ask("GET", f"runs?dataset={_DATASET}&state=finished&limit=1"))["items"]
    if runs:
        return str(runs[0]["id"])
    await api.ensure_model(_MODEL, provider="simulated", model="simulated", settings={"output": "echo"})
    version = await api.ensure_prompt(_PROMPT, "{{ input }}")
    run = await api.finished_run(
        {
            "prompts": [{"name": _PROMPT, "version": version}],
            "models": [_MODEL],
            "dataset": _DATASET,
            "scorers": [{"type": "contains", "value": "{{ expected }}"}],
        }
    )
    return str(run["id"])


def reads(client: Client, prompts: int = PROMPTS) -> Iterator[Prepared]:
    """Prompt reads by label, for ever, over all prompts in a random order."""
    requests = [
        Prepared("read", client.encode("GET", f"/api/v1/prompts/{prompt_name(number)}?label=production"))
        for number in range(prompts)
    ]
    random.Random(_SEED).shuffle(requests)
    return itertools.cycle(requests)


def mixed(client: Client, run_id: str, prompts: int = PROMPTS) -> Iterator[Prepared]:
    """The whole mix, for ever, in a random order that is always the same."""
    chance = random.Random(_SEED)
    sources = {
        "read": reads(client, prompts),
        "result": _results(client, run_id),
        "render": _renders(client, prompts),
        "write": _writes(client, prompts),
    }
    kinds, weights = list(SHARES), list(SHARES.values())
    while True:
        for kind in chance.choices(kinds, weights, k=1000):
            yield next(sources[kind])


def _results(client: Client, run_id: str) -> Iterator[Prepared]:
    paths = (f"runs/{run_id}", f"runs/{run_id}/results?limit=20", "runs?limit=20", f"runs/{run_id}/report")
    return itertools.cycle([Prepared("result", client.encode("GET", f"/api/v1/{path}")) for path in paths])


def _renders(client: Client, prompts: int) -> Iterator[Prepared]:
    values = {"vars": {"shop": "Lamps & Co", "message": "My lamp does not light up. What can I do?"}}
    paths = (f"/api/v1/prompts/{prompt_name(number)}/render" for number in range(prompts))
    return itertools.cycle([Prepared("render", client.encode("POST", path, values)) for path in paths])


def _writes(client: Client, prompts: int) -> Iterator[Prepared]:
    """New versions and moves of `production`, in turn."""
    batch = uuid.uuid4().hex
    for count in itertools.count():
        name = prompt_name(count % prompts)
        body: Any = {"template": template(f"Note {batch} {count}.")}
        yield Prepared("write", client.encode("POST", f"/api/v1/prompts/{name}/versions", body))
        body = {"version": 1 + count % 2}
        yield Prepared("write", client.encode("PUT", f"/api/v1/prompts/{name}/labels/production", body))
