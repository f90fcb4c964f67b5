"""Model endpoints through the front door: their rules, and that a secret never comes back."""

from typing import Any

import pytest

from autoforge.encryption import decrypt
from autoforge.models import Project
from prompts.models import ModelEndpoint
from tests.conftest import ApiClient
from tests.fake_vendor import Reply, fake_vendor

SECRET = "sk-very-secret-123"
OPENAI = {"name": "gpt", "provider": "openai", "model": "gpt-4.1-mini", "api_key": SECRET}
SIMULATED = {"name": "echo", "provider": "simulated", "settings": {"latency_ms": 5}}


def test_an_endpoint_is_created_and_read_back_without_its_secret(api: ApiClient, viewer: ApiClient) -> None:
    body = OPENAI | {
        "base_url": "https://models.example.com/v1",
        "params": {"temperature": 0},
        "prices": {"input_per_mtok": 0.4, "output_per_mtok": "1.600001"},
        "limits": {"requests_per_min": 600},
    }
    answer = api.post("/api/v1/models", body)
    created = answer.expect(201)
    assert viewer.get("/api/v1/models/gpt").expect(200) == created
    assert created.pop("created_at") and created.pop("updated_at")
    assert created == {
        "name": "gpt",
        "provider": "openai",
        "model": "gpt-4.1-mini",
        "base_url": "https://models.example.com/v1",
        "has_api_key": True,
        "params": {"temperature": 0},
        "prices": {"input_per_mtok": 0.4, "output_per_mtok": 1.600001},
        "limits": {"requests_per_min": 600, "tokens_per_min": None, "max_concurrency": None},
        "settings": {},
    }


def test_the_secret_is_encrypted_and_leaves_nowhere(api: ApiClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    answers = [
        api.post("/api/v1/models", OPENAI),
        api.get("/api/v1/models"),
        api.get("/api/v1/models/gpt"),
        api.patch("/api/v1/models/gpt", {"params": {"seed": 1}}),
        api.patch("/api/v1/models/gpt", {"api_key": SECRET + "\n"}),
    ]
    assert [answer.response.status_code for answer in answers] == [201, 200, 200, 200, 422]
    assert not [answer for answer in answers if SECRET.encode() in answer.response.content]
    assert SECRET not in caplog.text
    stored = ModelEndpoint.objects.get()
    assert SECRET not in stored.encrypted_api_key
    assert decrypt(stored.encrypted_api_key) == SECRET
    assert SECRET not in repr(stored.as_endpoint())


def test_a_patch_changes_what_it_names(api: ApiClient) -> None:
    limits, prices = {"max_concurrency": 4}, {"input_per_mtok": 1, "output_per_mtok": 2}
    before = api.post("/api/v1/models", OPENAI | {"limits": limits, "prices": prices}).expect(201)
    after = api.patch("/api/v1/models/gpt", {"model": "gpt-5", "prices": None}).expect(200)
    assert after["updated_at"] > before["updated_at"]
    assert after == before | {"model": "gpt-5", "prices": None, "updated_at": after["updated_at"]}
    assert api.patch("/api/v1/models/gpt", {"limits": None}).expect(200)["limits"]["max_concurrency"] is None
    assert api.patch("/api/v1/models/gpt", {"api_key": None}).expect(200)["has_api_key"] is False
    assert ModelEndpoint.objects.get().encrypted_api_key == ""
    assert api.patch("/api/v1/models/gpt", {}).expect(200)["model"] == "gpt-5"


def test_a_stored_secret_does_not_follow_to_another_address(api: ApiClient) -> None:
    api.post("/api/v1/models", OPENAI).expect(201)
    for change in ({"base_url": "https://elsewhere.example.com/v1"}, {"provider": "anthropic"}):
        assert "belongs to the old address" in api.patch("/api/v1/models/gpt", change).expect(422)["detail"]
        api.patch("/api/v1/models/gpt", change | {"api_key": "new"}).expect(200)
    without = {"base_url": None, "provider": "openai", "api_key": None}
    assert api.patch("/api/v1/models/gpt", without).expect(200)["has_api_key"] is False
    api.patch("/api/v1/models/gpt", {"base_url": "https://third.example.com/v1"}).expect(200)


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"provider": "openai"}, "The field 'name' is missing"),
        (SIMULATED | {"settings": {"rate_limit_every": 10**400}}, "between 1 and 1e+06"),
        (OPENAI | {"name": "a b"}, "The model's name 'a b'"),
        (OPENAI | {"name": "a/b"}, "The model's name 'a/b'"),
        (OPENAI | {"provider": "acme"}, "provider: Invalid enum value 'acme'"),
        (OPENAI | {"model": ""}, "openai needs 'model'"),
        ({"name": "c", "provider": "anthropic", "api_key": "k"}, "anthropic needs 'model'"),
        ({"name": "c", "provider": "anthropic", "model": "claude"}, "anthropic needs 'api_key'"),
        (OPENAI | {"model": "m" * 201}, "at most 200 characters"),
        (OPENAI | {"api_key": "ключ"}, "printable ASCII"),
        (OPENAI | {"base_url": "http://127.0.0.1:9/v1"}, "loopback"),
        (OPENAI | {"base_url": "http://169.254.169.254/"}, "private"),
        (OPENAI | {"base_url": "file:///etc/passwd"}, "http:// or https://"),
        (OPENAI | {"base_url": "https://me:pw@example.com"}, "must not contain a user or password"),
        (OPENAI | {"params": {"stream": True}}, "params must not contain stream"),
        (OPENAI | {"prices": {"input_per_mtok": 1}}, "The field 'output_per_mtok' is missing"),
        (OPENAI | {"prices": {"input_per_mtok": -1, "output_per_mtok": 1}}, "A price is between 0"),
        (OPENAI | {"prices": {"input_per_mtok": "NaN", "output_per_mtok": 1}}, "A price is between 0"),
        (OPENAI | {"prices": {"input_per_mtok": "x", "output_per_mtok": 1}}, "prices.input_per_mtok: "),
        (OPENAI | {"limits": {"max_concurrency": 0}}, "limits.max_concurrency is between 1 and"),
        (OPENAI | {"limits": {"per_hour": 1}}, "There is no field 'per_hour'"),
        (OPENAI | {"settings": {"latency_ms": 1}}, "There is no field 'latency_ms'. They are: stream."),
        (OPENAI | {"settings": {"stream": "no"}}, "settings: stream: expected bool"),
        (SIMULATED | {"settings": {"latency": 1}}, "There is no field 'latency'. They are: latency_ms, "),
        (SIMULATED | {"settings": {"error_rate": 2}}, "settings.error_rate is between 0 and 1, not 2"),
        (SIMULATED | {"settings": {"tokens_per_s": 0}}, "settings.tokens_per_s is between"),
        (SIMULATED | {"settings": {"latency_ms": "5"}}, "settings: latency_ms: expected float, got str"),
        (OPENAI | {"secret": "x"}, "There is no field 'secret'"),
    ],
)
def test_a_bad_endpoint_is_refused_with_a_sentence(api: ApiClient, body: Any, sentence: str) -> None:
    problem = api.post("/api/v1/models", body).expect(422)
    assert sentence in problem["detail"]
    assert not ModelEndpoint.objects.exists()


def test_the_rules_hold_for_changes_too(api: ApiClient) -> None:
    before = api.post("/api/v1/models", SIMULATED).expect(201)
    for change in (
        {"settings": {"error_rate": 2}},
        {"provider": "openai"},
        {"limits": {"requests_per_min": 0}},
        {"base_url": "http://10.0.0.1/v1"},
        {"name": "other"},
    ):
        api.patch("/api/v1/models/echo", change).expect(422)
    assert api.get("/api/v1/models/echo").expect(200) == before


@pytest.mark.usefixtures("private_endpoints_allowed")
def test_private_addresses_can_be_allowed(api: ApiClient) -> None:
    body = OPENAI | {"base_url": "http://127.0.0.1:9/v1"}
    assert api.post("/api/v1/models", body).expect(201)["base_url"] == "http://127.0.0.1:9/v1"


def test_the_local_model_has_no_address(api: ApiClient) -> None:
    body = {"name": "local", "provider": "local", "base_url": "https://example.com"}
    created = api.post("/api/v1/models", body).expect(201)
    assert (created["base_url"], created["model"]) == (None, "")


def test_a_name_is_taken_once_a_project(api: ApiClient, stranger: ApiClient) -> None:
    api.post("/api/v1/models", SIMULATED).expect(201)
    assert "PATCH models/echo" in api.post("/api/v1/models", SIMULATED).expect(409)["detail"]
    stranger.post("/api/v1/models", SIMULATED).expect(201)


def test_a_deleted_endpoint_is_gone(api: ApiClient) -> None:
    api.post("/api/v1/models", SIMULATED).expect(201)
    assert api.delete("/api/v1/models/echo").expect(204) == b""
    assert "There is no model 'echo'" in api.get("/api/v1/models/echo").expect(404)["detail"]
    api.delete("/api/v1/models/echo").expect(404)


def test_a_page_of_endpoints_costs_one_query(api: ApiClient, django_assert_num_queries: Any) -> None:
    for number in range(3):
        api.post("/api/v1/models", SIMULATED | {"name": f"m{number}"}).expect(201)
    with django_assert_num_queries(1):
        first = api.get("/api/v1/models?limit=2").expect(200)
    rest = api.get(f"/api/v1/models?limit=2&cursor={first['next_cursor']}").expect(200)
    assert [item["name"] for item in first["items"] + rest["items"]] == ["m0", "m1", "m2"]


ROUTES = [
    ("GET", "/api/v1/models/echo", None),
    ("PATCH", "/api/v1/models/echo", {"model": "x"}),
    ("DELETE", "/api/v1/models/echo", None),
]


@pytest.mark.parametrize(("method", "path", "body"), ROUTES)
@pytest.mark.usefixtures("endpoint")
def test_strangers_and_nobody_get_nothing(
    stranger: ApiClient, nobody: ApiClient, method: str, path: str, body: Any
) -> None:
    stranger.request(method, path, body).expect(404)
    nobody.request(method, path, body).expect(401)
    assert stranger.get("/api/v1/models").expect(200)["items"] == []


@pytest.mark.parametrize(("method", "path", "body"), [*ROUTES[1:], ("POST", "/api/v1/models", SIMULATED)])
@pytest.mark.usefixtures("endpoint")
def test_a_viewer_only_reads(viewer: ApiClient, method: str, path: str, body: Any) -> None:
    viewer.request(method, path, body).expect(403)
    assert viewer.get("/api/v1/models/echo").expect(200)["model"] == ""


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("private_endpoints_allowed")
def test_a_check_makes_one_real_call(api: ApiClient, project: Project) -> None:
    with fake_vendor(Reply(text="OK")) as vendor:
        body = OPENAI | {"base_url": vendor.base_url}
        api.post("/api/v1/models", body).expect(201)
        for _ in range(2):  # past the cache
            answer = api.post("/api/v1/models/gpt/check").expect(200)
            assert (answer.pop("ok"), answer.pop("text")) == (True, "OK")
            assert answer.keys() == {"latency_ms"}
        assert vendor.count == 2
        assert vendor.calls[0].headers["Authorization"] == f"Bearer {SECRET}"
        vendor.script(Reply(status=401, error={"message": f"bad key {SECRET}"}))
        refused = api.post("/api/v1/models/gpt/check").expect(200)
    assert (refused["ok"], refused["code"]) == (False, "authentication")
    assert SECRET not in refused["error"]


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("endpoint")
def test_a_check_is_for_the_projects_editors(
    stranger: ApiClient, viewer: ApiClient, nobody: ApiClient
) -> None:
    stranger.post("/api/v1/models/echo/check").expect(404)
    viewer.post("/api/v1/models/echo/check").expect(403)
    nobody.post("/api/v1/models/echo/check").expect(401)
