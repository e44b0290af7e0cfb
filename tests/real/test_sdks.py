"""SDKs of model and experiment services before a stand-in for those services."""

import json
import threading
import time

import anthropic
import mlflow
import openai
import pytest

from harness.gate import Key

ALICE = Key("alice")
SLOW = Key("slow", limits={"requests": 1, "per": "2s", "burst": 1})
REASON = "A valid API key is required."
UPSTREAM_SECRET = "upstream-secret-4711"


class Model:
    """A service that streams a second event only when the first has arrived at the client."""

    def __init__(self, lab):
        self.first_arrived = threading.Event()
        self.upstream = lab.upstream(self.answer)
        config = f"""
upstreams:
  model: {{ servers: ["{self.upstream.address}"] }}
routes:
  - path: /
    upstream: model
    set_headers: {{ X-Upstream-Key: "${{env:UPSTREAM_KEY}}" }}
"""
        self.gate = lab.gate(config, [ALICE, SLOW], {"UPSTREAM_KEY": UPSTREAM_SECRET})

    def events(self, events):
        """Events, held back after the first until it was seen at the other end."""
        for index, (name, data) in enumerate(events):
            if index == 1:
                assert self.first_arrived.wait(15), "the first event did not arrive by itself"
            head = f"event: {name}\n" if name else ""
            yield f"{head}data: {data if isinstance(data, str) else json.dumps(data)}\n\n".encode()

    def answer(self, out, seen):
        """Answers as OpenAI, Anthropic or MLflow, by path."""
        asked = json.loads(seen.body or b"{}")
        if seen.path.endswith("/chat/completions"):
            base = {"id": "c1", "object": "chat.completion", "created": 1, "model": "m"}
            if not asked.get("stream"):
                choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hello"}}
                out.send(200, json.dumps(base | {"choices": [choice]}))
                return
            base["object"] = "chat.completion.chunk"
            chunks = [
                (None, base | {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]})
                for text in ("one ", "two ", "three")
            ]
            out.stream(self.events([*chunks, (None, "[DONE]")]))
        elif seen.path == "/v1/messages":
            message = {"id": "m1", "type": "message", "role": "assistant", "model": "m", "stop_sequence": None}
            usage = {"input_tokens": 1, "output_tokens": 1}
            if not asked.get("stream"):
                body = message | {"content": [{"type": "text", "text": "hello"}], "stop_reason": "end_turn", "usage": usage}
                out.send(200, json.dumps(body))
                return
            start = message | {"content": [], "stop_reason": None, "usage": usage}
            block = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
            delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hello"}}
            end = {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": usage}
            events = [{"type": "message_start", "message": start}, block, delta, {"type": "content_block_stop", "index": 0}]
            out.stream(self.events([(event["type"], event) for event in [*events, end, {"type": "message_stop"}]]))
        elif seen.path.endswith("/mlflow/experiments/search"):
            experiment = {"experiment_id": "7", "name": "rain", "lifecycle_stage": "active", "artifact_location": "x"}
            out.send(200, json.dumps({"experiments": [experiment]}))
        else:
            out.send(404, json.dumps({"error_code": "RESOURCE_DOES_NOT_EXIST", "message": seen.target}))

    def check_key_stayed(self):
        """The upstream got its own secret and nothing of ours."""
        assert self.upstream.seen
        for seen in self.upstream.seen:
            assert seen.one("X-Upstream-Key") == UPSTREAM_SECRET
            assert seen.one("X-Auth-User") in ("alice", "slow")
            assert not any(seen.holds(key.secret) for key in (ALICE, SLOW))


@pytest.fixture
def model(lab):
    """A model service behind a gate."""
    made = Model(lab)
    yield made


ASK = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def open_ai(model, key, **more):
    """The client as its documentation says."""
    return openai.OpenAI(base_url=f"{model.gate.url}/v1", api_key=key, **more)


def claude(model, key, **more):
    """The client as its documentation says."""
    return anthropic.Anthropic(base_url=model.gate.url, api_key=key, **more)


def test_openai_whole_and_streamed(model):
    """An answer at once, and one event by event."""
    client = open_ai(model, ALICE.secret)
    assert client.chat.completions.create(**ASK).choices[0].message.content == "hello"
    text = ""
    for chunk in client.chat.completions.create(**ASK, stream=True):
        text += chunk.choices[0].delta.content or ""
        model.first_arrived.set()
    assert text == "one two three"
    model.check_key_stayed()


def test_openai_on_azure_sends_its_own_header(model):
    """`api-key:` beside a query that must stay."""
    client = openai.AzureOpenAI(base_url=f"{model.gate.url}/v1", api_key=ALICE.secret, api_version="2026-01-01")
    assert client.chat.completions.create(**ASK).choices[0].message.content == "hello"
    assert model.upstream.seen[-1].target == "/v1/deployments/m/chat/completions?api-version=2026-01-01"
    model.check_key_stayed()


def test_anthropic_whole_and_streamed(model):
    """As above, with named events."""
    client = claude(model, ALICE.secret)
    assert client.messages.create(**ASK, max_tokens=9).content[0].text == "hello"
    with client.messages.stream(**ASK, max_tokens=9) as stream:
        for _ in stream:
            model.first_arrived.set()
        assert stream.get_final_message().content[0].text == "hello"
    model.check_key_stayed()


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
def test_a_refused_key_is_readable(model, kind):
    """401 as the SDK's own exception, with the gate's sentence in its text."""
    if kind == "openai":
        with pytest.raises(openai.AuthenticationError) as refused:
            open_ai(model, "kg_nobody").chat.completions.create(**ASK)
        assert refused.value.code == "unauthorized" and refused.value.type == "authentication_error"
    else:
        with pytest.raises(anthropic.AuthenticationError) as refused:
            claude(model, "kg_nobody").messages.create(**ASK, max_tokens=9)
    assert refused.value.status_code == 401 and REASON in str(refused.value)
    assert refused.value.response.headers["www-authenticate"]
    assert model.gate.await_access(status=401)["reason"] == "unknown"
    assert len(model.gate.access(status=401)) == 1 and not model.upstream.seen


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
def test_a_limit_is_readable_and_its_retry_waits(model, kind):
    """429 as the SDK's own exception when it may not retry; when it may, it waits as long as the gate says and gets in."""

    def ask(retries):
        if kind == "openai":
            return open_ai(model, SLOW.secret, max_retries=retries).chat.completions.create(**ASK)
        return claude(model, SLOW.secret, max_retries=retries).messages.create(**ASK, max_tokens=9)

    ask(0)
    with pytest.raises((openai.RateLimitError, anthropic.RateLimitError)) as limited:
        ask(0)
    answer = limited.value.response
    assert limited.value.status_code == 429 and answer.json()["error"]["code"] == "rate_limited"
    assert answer.json()["message"] in str(limited.value)
    assert int(answer.headers["retry-after"]) in (1, 2)
    began = time.monotonic()
    ask(3)
    assert 0.5 < time.monotonic() - began < 8
    assert len(model.upstream.seen) == 2
    model.check_key_stayed()


@pytest.fixture
def tracking(model, monkeypatch, tmp_path):
    """An MLflow client that reads its key from the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    for name in ("TOKEN", "USERNAME", "PASSWORD"):
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}", raising=False)

    def client(**env):
        for name, value in env.items():
            monkeypatch.setenv(f"MLFLOW_TRACKING_{name}", value)
        return mlflow.MlflowClient(tracking_uri=model.gate.url)

    return client


@pytest.mark.parametrize("env", [{"TOKEN": ALICE.secret}, {"USERNAME": "anyone", "PASSWORD": ALICE.secret}], ids=["token", "password"])
def test_mlflow_by_token_and_by_password(model, tracking, env):
    """Bearer, and Basic with any user name."""
    assert [found.name for found in tracking(**env).search_experiments()] == ["rain"]
    assert model.upstream.seen[-1].one("Authorization") is None
    model.check_key_stayed()


def test_mlflow_says_why_it_was_refused(model, tracking):
    """The reason is in the exception."""
    with pytest.raises(mlflow.exceptions.MlflowException, match=REASON):
        tracking(TOKEN="kg_nobody").search_experiments()
    assert not model.upstream.seen


def test_mlflow_waits_for_a_limit(model, tracking, monkeypatch):
    """A 429 is retried after the time that the gate gives; without retries its reason is in the exception."""
    client = tracking(TOKEN=SLOW.secret)
    client.search_experiments()
    began = time.monotonic()
    client.search_experiments()
    assert 0.5 < time.monotonic() - began < 10 and len(model.upstream.seen) == 2
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(mlflow.exceptions.MlflowException, match="(?i)too many|rate|limit"):
        client.search_experiments()
    model.gate.await_access(status=429)
    model.check_key_stayed()
