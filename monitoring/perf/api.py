"""The installation's REST API as the generators use it to set their stage."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from monitoring.perf.client import Answer, Client
from monitoring.perf.errors import PerfError
from monitoring.perf.server import Server

ENDED = ("finished", "failed", "cancelled", "over_budget")
_POLL_S = 0.05


class Api:
    """Asks and expects; raises PerfError with the server's own words."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def answer(self, method: str, path: str, body: Any = None, **options: Any) -> Answer:
        return await self.client.ask(self.client.encode(method, f"/api/v1/{path}", body, **options))

    async def ask(self, method: str, path: str, body: Any = None, **options: Any) -> Any:
        """The decoded body of a 2xx answer."""
        answer = await self.answer(method, path, body, **options)
        if not 200 <= answer.status < 300:
            raise _refusal(method, path, answer)
        return answer.json()

    async def create(self, path: str, body: dict[str, Any]) -> bool:
        """POST `body`; whether it is new, False when the name is taken already."""
        answer = await self.answer("POST", path, body)
        if answer.status not in (201, 409):
            raise _refusal("POST", path, answer)
        return answer.status == 201

    async def names(self, path: str) -> set[str]:
        """The names of all that a list shows; `path` has a query."""
        names: set[str] = set()
        page = await self.ask("GET", f"{path}&limit=200")
        while True:
            names |= {item["name"] for item in page["items"]}
            if not page["next_cursor"]:
                return names
            page = await self.ask("GET", f"{path}&limit=200&cursor={page['next_cursor']}")

    async def ensure_prompt(self, prompt: str, template: str) -> int:
        """The number of the version of the text prompt `prompt` that has this content."""
        if await self.create("prompts", {"name": prompt, "type": "text", "template": template}):
            return 1
        shown = await self.ask("POST", f"prompts/{prompt}/versions", {"template": template})
        return int(shown["version"])

    async def ensure_dataset(self, name: str, lines: bytes) -> None:
        """A dataset of these JSON lines; one that has cases already stays as it is."""
        await self.create("datasets", {"name": name})
        if not (await self.ask("GET", f"datasets/{name}"))["cases"]:
            kind = "application/x-ndjson"
            await self.ask("POST", f"datasets/{name}/import", lines, content_type=kind)

    async def ensure_model(self, name: str, **fields: Any) -> None:
        """A model endpoint with these fields."""
        if not await self.create("models", {"name": name, **fields}):
            await self.ask("PATCH", f"models/{name}", fields)

    async def finished_run(self, new: dict[str, Any], *, timeout_s: float = 600.0) -> dict[str, Any]:
        """Start a run and return it once it has finished. Raises PerfError when it ended otherwise."""
        run = await self.ask("POST", "runs", new)
        try:
            async with asyncio.timeout(timeout_s):
                while run["state"] not in ENDED:
                    await asyncio.sleep(_POLL_S)
                    run = await self.ask("GET", f"runs/{run['id']}")
        except TimeoutError:
            done = f"{run['done']} of {run['total']} cells"
            raise PerfError(f"The run is {run['state']} after {timeout_s:.0f} s, {done} done.") from None
        if run["state"] != "finished" or run["errors"]:
            reason = run["reason"] or await self._first_error(run)
            raise PerfError(f"A run ended {run['state']} with {run['errors']} errors: {reason}")
        return dict(run)

    async def _first_error(self, run: dict[str, Any]) -> str:
        page = await self.ask("GET", f"runs/{run['id']}/results?state=error&limit=1")
        return str(page["items"][0]["error"]) if page["items"] else "no reason was given"


def _refusal(method: str, path: str, answer: Answer) -> PerfError:
    text = answer.body.decode(errors="replace")[:500]
    return PerfError(f"{method} /api/v1/{path} was answered {answer.status or 'by nobody'}: {text}")


@asynccontextmanager
async def api_of(server: Server, *, connections: int = 8) -> AsyncIterator[Api]:
    """The API over a client of its own. Raises PerfError when nobody answers at the address."""
    async with Client(server.url, key=server.key, connections=connections) as client:
        answer = await client.ask(client.encode("GET", "/health/live"))
        if answer.status != 200:
            reason = answer.status or answer.body.decode()
            raise PerfError(f"{server.url} does not answer: {reason}. Is the server running?")
        yield Api(client)
