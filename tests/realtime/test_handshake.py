"""Who is let in, how, and what the others are told."""

import asyncio
import base64
from contextlib import AsyncExitStack
from typing import Any

import msgspec
import pytest
from websockets.exceptions import InvalidStatus

from tests.realtime import lending
from tests.realtime.clients import WebProcess, WebSocketClient

# What the documentation promises to who loses a right.
CUT_OFF_S = 5


async def assert_works(client: WebSocketClient) -> None:
    await client.send("ping")
    await client.expect("pong")


async def test_a_key_opens_a_websocket(server: WebProcess) -> None:
    async with server.connect("viewer") as client:
        await assert_works(client)


async def test_public_and_secret_part_open_a_websocket(server: WebProcess, world: dict[str, Any]) -> None:
    pair = base64.b64encode(f"{world['editor_public']}:{world['editor']}".encode()).decode()
    async with server.connect(None, additional_headers={"Authorization": f"Basic {pair}"}) as client:
        await assert_works(client)


@pytest.mark.parametrize("secret", [None, "af_sk_wrong"])
async def test_nobody_is_closed_with_4401(server: WebProcess, secret: str | None) -> None:
    async with server.connect(secret) as client:
        assert await client.close_code() == 4401


async def test_a_ticket_opens_one_websocket(server: WebProcess, world: dict[str, Any]) -> None:
    asked = await asyncio.to_thread(
        server.request, "POST", "/api/v1/ws-tickets", Authorization=f"Bearer {world['viewer']}"
    )
    assert asked["expires_in_s"] == 30
    async with AsyncExitStack() as stack:
        path = f"/ws/v1/?ticket={asked['ticket']}"
        clients = [await stack.enter_async_context(server.connect(None, path)) for _ in range(3)]
        outcomes = await asyncio.gather(*map(_outcome, clients))
    assert sorted(outcomes, key=str) == [4401, 4401, "pong"]


async def _outcome(client: WebSocketClient) -> int | str:
    try:
        await client.send("ping")
        return (await client.next())["type"]
    except Exception:
        return await client.close_code()


async def test_a_session_opens_a_websocket_from_our_own_origin(
    server: WebProcess, world: dict[str, Any]
) -> None:
    cookie = {"Cookie": f"sessionid={world['session']}"}
    origin = f"http://127.0.0.1:{server.port}"
    async with server.connect(None, additional_headers=cookie, origin=origin) as client:
        await assert_works(client)


@pytest.mark.parametrize("origin", [None, "https://evil.example", "http://127.0.0.1.evil.example"])
async def test_a_session_from_elsewhere_is_refused(
    server: WebProcess, world: dict[str, Any], origin: str | None
) -> None:
    cookie = {"Cookie": f"sessionid={world['session']}"}
    async with server.connect(None, additional_headers=cookie, origin=origin) as client:
        assert await client.close_code() == 4401


async def test_another_path_is_closed_and_no_error(server: WebProcess) -> None:
    async with server.connect(path="/ws/v2/") as client:
        assert await client.close_code() == 4404
    assert server.logged_errors() == []


async def test_over_capacity_the_handshake_is_refused(server: WebProcess) -> None:
    async with AsyncExitStack() as stack:
        status = None
        for _ in range(13):
            try:
                await stack.enter_async_context(server.connect())
            except InvalidStatus as refused:
                status = refused.response.status_code
        assert status == 503
    async with server.connect() as client:
        await assert_works(client)


async def test_who_loses_the_right_to_be_there_is_cut_off(server: WebProcess) -> None:
    name = server.server
    lent = await asyncio.to_thread(server.request, "POST", "/rights/lend", name.encode())
    origin = f"http://127.0.0.1:{server.port}"
    async with AsyncExitStack() as stack:
        clients = {
            key: await stack.enter_async_context(server.connect(lent[key])) for key in lending.KEYS
        } | {
            user: await stack.enter_async_context(
                server.connect(None, additional_headers={"Cookie": f"sessionid={lent[user]}"}, origin=origin)
            )
            for user in lending.USERS
        }
        for client in clients.values():
            await assert_works(client)
        await asyncio.to_thread(server.request, "POST", "/rights/back", msgspec.json.encode((name, lent)))
        kept = clients.pop("kept")
        async with asyncio.timeout(CUT_OFF_S):
            codes = await asyncio.gather(*(client.close_code() for client in clients.values()))
        assert dict(zip(clients, codes, strict=True)) == dict.fromkeys(clients, 4401)
        await assert_works(kept)
