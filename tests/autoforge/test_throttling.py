"""Rate limits: exact over threads and processes, told in headers; and failed logins."""

import base64
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.checks import run_checks
from django.test import Client, override_settings
from prometheus_client import REGISTRY

from autoforge import throttling
from autoforge.auth import key_copies
from autoforge.models import Membership, Project, Role
from autoforge.services import create_api_key
from autoforge.throttling import Policy, Throttle
from tests.conftest import ApiClient
from tests.own_redis import OwnRedis, eventually, own_redis

__all__ = ["own_redis"]

LIST = "/api/v1/prompts"
LIMITS = re.compile(r'"(?P<policy>[\w-]+)";r=(?P<left>\d+);t=(?P<resets>\d+)')


@pytest.fixture(params=["local", "redis"])
def counters(request: pytest.FixtureRequest) -> Iterator[None]:
    """Counted in this process, and in Redis."""
    if request.param == "redis":
        request.getfixturevalue("own_redis")
        yield
    else:
        with override_settings(REDIS_URL=""):
            yield


@pytest.fixture
def three_failures() -> Iterator[None]:
    hasher = "django.contrib.auth.hashers.MD5PasswordHasher"  # quick
    with override_settings(FAILED_LOGINS_PER_MIN=3, PASSWORD_HASHERS=[hasher]):
        yield


def client(project: Project, per_min: int | None, role: Role = Role.EDITOR) -> ApiClient:
    key = create_api_key(project, name="limited", role=role, rate_limit_per_min=per_min)
    return ApiClient(key.secret)


def metric(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


@pytest.mark.usefixtures("counters")
class TestCallers:
    """What a caller of the REST API sees."""

    def test_every_answer_says_what_is_left_errors_too(self, project: Project) -> None:
        viewer = client(project, 20, Role.VIEWER)
        answers = [
            viewer.get(LIST),
            viewer.get(f"{LIST}/nothing"),
            viewer.get(f"{LIST}?unknown=1"),
            viewer.post(LIST, {}),
            viewer.put(LIST),
        ]
        assert [answer.response.status_code for answer in answers] == [200, 404, 422, 403, 405]
        for number, answer in enumerate(answers[:4], start=1):
            assert answer.headers["RateLimit-Policy"] == '"key";q=20;w=60'
            found = LIMITS.fullmatch(answer.headers["RateLimit"])
            assert found and int(found["left"]) == 20 - number
            assert 0 < int(found["resets"]) <= 60

    def test_over_the_limit_it_is_429_until_there_is_room(self, project: Project) -> None:
        caller, refused = client(project, 3), metric("autoforge_rate_limit_refused_total", policy="key")
        for _ in range(3):
            caller.get(LIST).expect(200)
        for _ in range(5):
            answer = caller.get(LIST)
            problem = answer.expect(429)
            assert answer.headers["Content-Type"] == "application/problem+json"
            assert (problem["code"], problem["status"]) == ("rate_limited", 429)
            assert 1 <= int(answer.headers["Retry-After"]) <= 120
            found = LIMITS.fullmatch(answer.headers["RateLimit"])
            assert found and found["left"] == "0"
        assert metric("autoforge_rate_limit_refused_total", policy="key") == refused + 5

    def test_each_key_has_its_own_limit(self, project: Project) -> None:
        first, second = client(project, 1), client(project, 1)
        first.get(LIST).expect(200)
        first.get(LIST).expect(429)
        second.get(LIST).expect(200)

    def test_a_key_with_limit_0_has_none(self, project: Project) -> None:
        free = client(project, 0)
        with override_settings(RATE_LIMIT_PER_MIN=1, RATE_LIMITS_BY_ROUTE={"prompts": 1}):
            for _ in range(3):
                answer = free.get(LIST)
                answer.expect(200)
        assert "RateLimit" not in answer.headers and "RateLimit-Policy" not in answer.headers

    def test_its_own_limit_goes_before_its_roles_and_that_before_the_default(self, project: Project) -> None:
        with override_settings(RATE_LIMIT_PER_MIN=7, RATE_LIMITS_BY_ROLE={"viewer": 5}):
            for role, own, shown in (
                (Role.EDITOR, None, 7),
                (Role.VIEWER, None, 5),
                (Role.VIEWER, 3, 3),
            ):
                answer = client(project, own, role).get(LIST)
                assert answer.headers["RateLimit-Policy"] == f'"key";q={shown};w=60'
        assert settings.RATE_LIMIT_PER_MIN == 6_000

    def test_a_routes_limit_holds_beside_the_callers(self, project: Project) -> None:
        caller = client(project, 10)
        with override_settings(RATE_LIMITS_BY_ROUTE={"models": 1}):
            allowed = caller.get("/api/v1/models")
            allowed.expect(200)
            assert allowed.headers["RateLimit-Policy"] == '"models";q=1;w=60, "key";q=10;w=60'
            left = [found["left"] for found in LIMITS.finditer(allowed.headers["RateLimit"])]
            assert left == ["0", "9"]
            assert caller.get("/api/v1/models").headers["RateLimit-Policy"] == '"models";q=1;w=60'
            caller.get("/api/v1/models").expect(429)
            # What the route refused was not taken from the caller's limit.
            assert LIMITS.fullmatch(caller.get(LIST).headers["RateLimit"])["left"] == "8"

    def test_async_routes_are_limited_alike(self, transactional_db: None, project: Project) -> None:
        caller = client(project, 2)
        call = {"messages": [{"role": "user", "content": "hi"}], "model": "nothing"}
        for body, status in ((call, 404), ({"model": 3}, 422)):
            answer = caller.post("/api/v1/completions", body)
            answer.expect(status)
            assert answer.headers["RateLimit-Policy"] == '"key";q=2;w=60'
        refused = caller.post("/api/v1/completions", call)
        assert refused.expect(429)["code"] == "rate_limited"
        assert int(refused.headers["Retry-After"]) >= 1

    def test_a_signed_in_user_is_limited_too(self, project: Project) -> None:
        user = get_user_model().objects.create_user("ann", password="a long password")
        Membership.objects.create(user=user, project=project, role=Role.VIEWER)
        browser = Client()
        browser.force_login(user)
        with override_settings(RATE_LIMIT_PER_MIN=2):
            answers = [browser.get(LIST) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert answers[0].headers["RateLimit-Policy"] == '"user";q=2;w=60'


@pytest.mark.usefixtures("counters")
class TestExactness:
    """Nobody gets more than the limit, and hardly less."""

    @pytest.mark.parametrize("per_min", [1, 7, 50, 99])
    def test_small_limits_are_exact_over_threads(self, per_min: int) -> None:
        throttle, policy = Throttle(), Policy("key", "1", per_min)

        def ask(_: int) -> bool:
            return (throttle.spend(policy) or throttle.ask(policy)).wait_s is None

        with ThreadPoolExecutor(8) as threads:
            assert sum(threads.map(ask, range(2 * per_min + 20))) == per_min

    def test_processes_share_a_limit(self) -> None:
        processes, policy = [Throttle() for _ in range(4)], Policy("key", "1", 2_000)
        allowed = 0
        for number in range(4_000):
            process = processes[number % 4]
            allowed += (process.spend(policy) or process.ask(policy)).wait_s is None
        assert 2_000 * 0.96 <= allowed <= 2_000

    def test_a_busy_caller_costs_few_questions_and_a_slow_one_loses_nothing(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        throttle, policy = Throttle(), Policy("key", "1", 6_000)
        asked = sum(throttle.spend(policy) is None and bool(throttle.ask(policy)) for _ in range(3_000))
        assert asked <= 3_000 / 60 + 10
        monkeypatch.setattr(throttling, "LEASE_S", 0.0)
        slow = Throttle()
        quotas = [slow.spend(policy) or slow.ask(policy) for _ in range(10)]
        assert quotas[0].left - quotas[-1].left == 9

    def test_nobody_is_refused_while_another_thread_takes_a_lease(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        throttle, policy = Throttle(), Policy("key", "1", 100_000)
        throttle.ask(policy)
        clock = time.monotonic

        def late() -> float:
            """This thread looks at the clock, then another one takes a lease."""
            now = clock()
            monkeypatch.setattr(throttling.time, "monotonic", clock)
            throttle.ask(policy)
            throttle._leases["key", "1"].left = 0
            return now

        monkeypatch.setattr(throttling.time, "monotonic", late)
        assert throttle.spend(policy) is None

    def test_a_changed_limit_holds_at_once(self) -> None:
        throttle = Throttle()
        assert throttle.ask(Policy("key", "1", 1)).wait_s is None
        assert throttle.spend(Policy("key", "1", 1)).wait_s is not None
        assert throttle.spend(Policy("key", "1", 2)) is None
        assert throttle.ask(Policy("key", "1", 2)).wait_s is None

    def test_it_remembers_a_bounded_number_of_callers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(throttling, "MAX_CALLERS", 20)
        throttle = Throttle()
        for number in range(100):
            throttle.ask(Policy("key", str(number), 5))
            assert len(throttle._leases) <= 20


@pytest.mark.parametrize(
    ("previous", "previous_s", "current", "resets_s"),
    [
        (0, 0, 10, 30),
        (10, 60, 0, 60),
        (10, 30.5, 5, 30.5),
        (7, 10, 9, 10),
        (0, 0, 12, 1),
        (10, 59.9, 9, 59.9),
    ],
)
def test_after_the_wait_there_is_room_and_before_there_is_not(
    previous: int, previous_s: float, current: int, resets_s: float
) -> None:
    limit = 10

    def is_full(after_s: float) -> bool:
        """What the counters would say after so many seconds, nobody asking."""
        if after_s < resets_s:
            weight = int(previous * max(0.0, previous_s - after_s) / 60) + current
        else:
            weight = int(current * max(0.0, 60 - (after_s - resets_s)) / 60)
        return weight + 1 > limit

    wait_s = throttling._wait_s(limit, previous, previous_s, current, resets_s)
    assert not is_full(wait_s + 0.01)
    assert wait_s < 0.01 or is_full(wait_s - 0.01)


class TestRedisAway:
    """It fails open: each process counts for itself, and that is counted."""

    def test_limits_hold_in_the_process_and_everywhere_once_redis_is_back(self, own_redis: OwnRedis) -> None:
        throttle, policy = Throttle(), Policy("key", "1", 5)
        own_redis.stop()
        before = metric("autoforge_rate_limit_local_total")
        quotas = [throttle.spend(policy) or throttle.ask(policy) for _ in range(7)]
        assert [quota.wait_s is None for quota in quotas] == [True] * 5 + [False] * 2
        assert metric("autoforge_rate_limit_local_total") == before + 5
        own_redis.start()
        eventually(lambda: bool(Throttle().ask(policy) and own_redis.client.keys("af:throttle:*")))

    def test_requests_pass_while_redis_hangs(self, own_redis: OwnRedis, api: ApiClient) -> None:
        api.get(LIST).expect(200)
        own_redis.freeze()
        for _ in range(20):
            api.get(LIST).expect(200)


@pytest.mark.usefixtures("counters", "three_failures")
class TestFailedLogins:
    """Wrong keys and passwords, by address."""

    def get(self, secret: str, address: str = "192.0.2.1", **headers: str) -> int:
        sent = {"Authorization": f"Bearer {secret}"} | headers
        return Client().get(LIST, headers=sent, REMOTE_ADDR=address).status_code

    def test_wrong_keys_are_refused_more_firmly_and_good_ones_are_not(
        self, project: Project, other_project: Project
    ) -> None:
        known, unknown = (
            create_api_key(each, name="k", role=Role.VIEWER).secret for each in (project, other_project)
        )
        assert self.get(known) == 200
        assert [self.get(f"af_sk_wrong{number}") for number in range(5)] == [401, 401, 401, 429, 429]
        # Known to this process, though it would have to be looked up again: not locked out.
        with override_settings(API_KEY_CACHE_S=0):
            assert [self.get(known) for _ in range(3)] == [200] * 3
        # Guessing right does not help either; from elsewhere it is a key like any other.
        assert self.get(unknown) == 429
        assert self.get(unknown, "192.0.2.2") == 200

    def test_a_refused_guess_costs_no_query(self, project: Project, django_assert_num_queries: Any) -> None:
        for _ in range(3):
            self.get("af_sk_wrong")
        with django_assert_num_queries(0):
            assert self.get("af_sk_guess") == 429

    def test_the_wrong_public_part_counts(self, project: Project) -> None:
        key = create_api_key(project, name="k", role=Role.VIEWER)
        for _ in range(3):
            Client().get(
                LIST, headers={"Authorization": _basic("af_pk_wrong", key.secret)}, REMOTE_ADDR="192.0.2.1"
            )
        key_copies.clear()
        assert self.get("af_sk_other") == 429

    def test_an_ipv6_client_has_one_network_not_many_addresses(self, project: Project) -> None:
        statuses = [self.get("af_sk_wrong", f"2001:db8:0:1::{number}") for number in range(1, 5)]
        assert statuses == [401, 401, 401, 429]
        assert self.get("af_sk_wrong", "2001:db8:0:2::1") == 401
        assert [self.get("af_sk_wrong", f"::ffff:192.0.2.{number}") for number in range(1, 6)] == [401] * 5

    def test_behind_a_proxy_the_address_is_the_one_it_adds(self, project: Project) -> None:
        with override_settings(BEHIND_PROXY=True):
            for _ in range(4):
                last = self.get("af_sk_wrong", "10.0.0.1", **{"X-Forwarded-For": "203.0.113.9, 198.51.100.7"})
            assert last == 429
            assert self.get("af_sk_wrong", "10.0.0.1", **{"X-Forwarded-For": "198.51.100.8"}) == 401
        # Without one it is anybody's claim.
        for number in range(4):
            last = self.get("af_sk_wrong", "192.0.2.9", **{"X-Forwarded-For": f"198.51.100.{number}"})
        assert last == 429

    def test_the_admins_login_form(self, project: Project) -> None:
        get_user_model().objects.create_superuser("root", password="a long password")

        def sign_in(password: str, address: str = "192.0.2.1") -> Any:
            form = {"username": "root", "password": password}
            return Client().post("/admin/login/?next=/admin/", form, REMOTE_ADDR=address)

        assert [sign_in("wrong").status_code for _ in range(4)] == [200, 200, 200, 429]
        refused = sign_in("a long password")
        assert (refused.status_code, "again in" in refused.content.decode()) == (429, True)
        assert int(refused.headers["Retry-After"]) >= 1
        assert Client().get("/admin/login/", REMOTE_ADDR="192.0.2.1").status_code == 200
        assert sign_in("a long password", "192.0.2.2").status_code == 302


def _basic(public_id: str, secret: str) -> str:
    return "Basic " + base64.b64encode(f"{public_id}:{secret}".encode()).decode()


def test_limits_of_what_does_not_exist_stop_the_start() -> None:
    def mistakes(**limits: dict[str, int]) -> list[str]:
        with override_settings(**limits):
            return [message.msg for message in run_checks() if "RATE_LIMITS" in message.msg]

    assert mistakes(RATE_LIMITS_BY_ROLE={"viewer": 1}, RATE_LIMITS_BY_ROUTE={"completions": 0}) == []
    assert [
        "reader=1: there is no 'reader', only editor" in each
        for each in mistakes(RATE_LIMITS_BY_ROLE={"reader": 1})
    ] == [True]
    assert len(mistakes(RATE_LIMITS_BY_ROUTE={"nowhere": 1, "runs": -1})) == 2
