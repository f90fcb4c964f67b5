"""No endpoint leads into the private network, whatever its address is written as or resolves to."""

import asyncio
import subprocess
import sys

import pytest
from django.test.utils import override_settings

from prompts.llm import client
from prompts.llm.providers.addresses import is_public
from prompts.llm.providers.base import ProviderError
from tests.fake_vendor import FakeVendor, Reply
from tests.prompts.llm.conftest import Ask

PRIVATE = [
    "http://127.0.0.1:8000/v1",
    "http://localhost/v1",
    "http://LOCALHOST./v1",
    "http://api.localhost/v1",
    "http://printer.local/v1",
    "http://metadata.google.internal/v1",
    "http://redis:6379",
    "http://10.0.0.1/v1",
    "http://172.16.3.4/v1",
    "http://192.168.1.1/v1",
    "http://169.254.169.254/latest/meta-data",
    "http://100.64.0.1/v1",
    "http://0.0.0.0/v1",
    "http://224.0.0.1/v1",
    "http://240.0.0.1/v1",
    "http://255.255.255.255/v1",
    "http://2130706433/v1",
    "http://0x7f000001/v1",
    "http://0x7f.1/v1",
    "http://0177.0.0.1/v1",
    "http://127.1/v1",
    "http://[::1]/v1",
    "http://[::]/v1",
    "http://[::ffff:127.0.0.1]/v1",
    "http://[::ffff:7f00:1]/v1",
    "http://[::127.0.0.1]/v1",
    "http://[64:ff9b::7f00:1]/v1",
    "http://[2002:7f00:1::]/v1",
    "http://[fe80::1]/v1",
    "http://[fc00::1]/v1",
    "http://[ff02::1]/v1",
    "http://①②⑦.⓪.⓪.①/v1",
]
WRONG = [
    "",
    "api.openai.com/v1",
    "ftp://example.com",
    "file:///etc/passwd",
    "http://",
    "http://x:y@example.com",
    "https://example.com/v1?key=1",
    "https://example.com/v1#a",
    "http://example.com:99999",
    "http://[::1",
]
PUBLIC = ["https://api.openai.com/v1", "https://93.184.216.34/v1", "http://[2606:4700::1111]/v1"]


@pytest.mark.parametrize("url", PRIVATE)
def test_a_private_base_url_is_refused(url: str):
    with override_settings(ALLOW_PRIVATE_ENDPOINTS=False), pytest.raises(ValueError, match=r"\.$"):
        client.check_base_url(url)


@pytest.mark.parametrize("url", WRONG)
@pytest.mark.parametrize("is_allowed", [True, False])
def test_a_wrong_base_url_is_refused_always(url: str, is_allowed: bool):
    with override_settings(ALLOW_PRIVATE_ENDPOINTS=is_allowed), pytest.raises(ValueError, match=r"\.$"):
        client.check_base_url(url)


@pytest.mark.parametrize("url", PUBLIC)
def test_a_public_base_url_is_fine(url: str):
    with override_settings(ALLOW_PRIVATE_ENDPOINTS=False):
        client.check_base_url(url)


def test_private_base_urls_are_fine_where_they_are_allowed():
    client.check_base_url("http://127.0.0.1:8080/v1")


async def refusal(ask: Ask, url: str) -> ProviderError:
    with (
        override_settings(ALLOW_PRIVATE_ENDPOINTS=False, REDIS_URL=""),
        pytest.raises(ProviderError) as caught,
    ):
        await client.complete(ask(endpoint_base_url=url, cache="no-store"))
    return caught.value


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "127.1", "[::ffff:127.0.0.1]", "0"])
async def test_no_connection_is_made_to_a_private_address(host: str, vendor: FakeVendor, ask: Ask):
    port = vendor.url.rpartition(":")[2]
    error = await refusal(ask, f"http://{host}:{port}/v1")
    # Either the connection is refused, or the HTTP client takes no such name for an address.
    assert (error.code, error.is_retryable) == ("invalid_request", False)
    assert vendor.count == 0


REBINDING = """
import asyncio, socket, sys
from prompts.llm.providers.http import open_session
real = socket.getaddrinfo
answers = iter(["93.184.216.34", "127.0.0.1"])
def rebinding(host, port, *args, **kwargs):
    return real(next(answers) if host == "rebinding.example" else host, port, *args, **kwargs)
socket.getaddrinfo = rebinding
socket.getaddrinfo("rebinding.example", 80)  # what a check before the call would have seen
async def main():
    async with open_session(allow_private=False) as session:
        try:
            await session.get(f"http://rebinding.example:{sys.argv[1]}/stats")
        except OSError as error:
            print(type(error.os_error).__name__)
asyncio.run(main())
"""


def test_a_name_that_changes_its_mind_reaches_nothing_private(vendor: FakeVendor):
    port = vendor.url.rpartition(":")[2]
    command = [sys.executable, "-c", REBINDING, port]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (done.stdout.strip(), done.stderr) == ("BlockedAddressError", "")


async def test_redirects_are_not_followed(vendor: FakeVendor, ask: Ask):
    vendor.default = Reply(status=307, headers={"Location": f"{vendor.url}/v1/messages"})
    with override_settings(REDIS_URL=""), pytest.raises(ProviderError) as caught:
        await client.complete(ask())
    assert (caught.value.status, vendor.count) == (307, 1)


@pytest.mark.parametrize(
    ("address", "is_fine"),
    [("8.8.8.8", True), ("2606:4700::1111", True), ("::ffff:8.8.8.8", True), ("fe80::1%eth0", False),
     ("192.0.2.1", False), ("198.18.0.1", False), ("2001:db8::1", False), ("64:ff9b::808:808", True)],
)  # fmt: skip
def test_public_addresses(address: str, is_fine: bool):
    assert is_public(address) is is_fine


async def test_many_connections_are_open_at_once(vendor: FakeVendor, ask: Ask):
    vendor.default = Reply(delay_s=0.5)
    with override_settings(REDIS_URL=""):
        await asyncio.gather(*(client.complete(ask(repeat=number)) for number in range(200)))
    assert vendor.max_in_flight == 200
