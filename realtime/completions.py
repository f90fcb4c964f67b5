"""A completion streamed to one client: tokens in small batches, then the whole."""

import asyncio
import logging
from contextlib import aclosing

from autoforge.auth import Actor
from autoforge.errors import AppError, as_app_error
from autoforge.models import Role
from autoforge.throttling import admit_async, policies_for
from prompts.budget import on_budget
from prompts.call_schemas import plain
from prompts.llm import client
from prompts.llm.providers.base import Completion, Delta, ProviderError, Request
from prompts.services.calls import PromptChoice, build_request
from realtime.connection import Connection
from realtime.frames import Complete, Completed, Failed, Token, Tokens, encode
from realtime.threads import in_thread

logger = logging.getLogger(__name__)

# The REST route whose limits count here too.
ROUTE = "completions"
# A frame per token would cost more than the token.
TOKEN_BATCH_S = 0.05


class ServerError(AppError):
    status, code = 500, "server_error"


async def stream_completion(connection: Connection, asked: Complete) -> None:
    """Answer `asked` with `token`* and `completed`, or `failed`. Cancelling it cancels the call upstream."""
    try:
        await admit_async(policies_for(connection.actor, ROUTE))
        request = await in_thread(_request_of, connection.actor, asked)
        await _stream(connection, asked.id, request)
    except ProviderError as error:
        connection.offer(encode(Failed(asked.id, error.code, error.message)))
    except Exception as error:
        refusal = as_app_error(error)
        if refusal is None:
            logger.exception("A completion over a WebSocket failed")
            refusal = ServerError("The server failed; this is logged.")
        connection.offer(encode(Failed(asked.id, refusal.code, refusal.detail)))


def _request_of(actor: Actor, asked: Complete) -> Request:
    """Raises Forbidden for viewers (a completion costs money), NotFound, InvalidInput."""
    actor.require(Role.EDITOR)
    prompt = None
    if asked.prompt is not None:
        prompt = PromptChoice(name=asked.prompt, label=asked.label, version=asked.version)
    return build_request(
        actor.project,
        prompt=prompt,
        messages=plain(asked.messages),
        model=asked.model,
        vars=asked.vars,
        params=asked.params,
    )


async def _stream(connection: Connection, id: str, request: Request) -> None:
    batch = _TokenBatch(connection, id)
    request, turn = on_budget(request, connection.actor)
    try:
        # Closing the stream is what cancels the call upstream.
        async with aclosing(client.stream(request, turn=turn)) as pieces:
            async for piece in pieces:
                if isinstance(piece, Delta):
                    batch.add(piece.text)
                else:
                    batch.flush()
                    connection.offer(encode(_completed(id, piece)))
    finally:
        batch.stop()


def _completed(id: str, completion: Completion) -> Completed:
    cost, saved = completion.cost_usd, completion.saved_usd
    return Completed(
        id=id,
        text=completion.text,
        finish_reason=completion.finish_reason,
        tokens=Tokens(completion.usage.input_tokens, completion.usage.output_tokens),
        cost_usd=None if cost is None else float(cost),
        saved_usd=None if saved is None else float(saved),
        cached=completion.cached,
        latency_ms=completion.latency_ms,
        ttft_ms=completion.ttft_ms,
    )


class _TokenBatch:
    """Sends the first text at once, then what has come every TOKEN_BATCH_S."""

    def __init__(self, connection: Connection, id: str) -> None:
        self._connection = connection
        self._id = id
        self._texts: list[str] = []
        self._pause: asyncio.TimerHandle | None = None

    def add(self, text: str) -> None:
        if text:
            self._texts.append(text)
            if self._pause is None:
                self._send()

    def flush(self) -> None:
        """Send what is left."""
        self.stop()
        if self._texts:
            self._connection.offer(encode(Token(self._id, "".join(self._texts))))
            self._texts = []

    def stop(self) -> None:
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None

    def _send(self) -> None:
        self._pause = None
        if self._texts:
            self.flush()
            self._pause = asyncio.get_running_loop().call_later(TOKEN_BATCH_S, self._send)
