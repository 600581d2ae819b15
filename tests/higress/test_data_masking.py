"""ai-data-masking, the plugin in Rust: words that may not pass, and data that is hidden from the model."""

from __future__ import annotations

from hashlib import md5, sha256
from typing import Any

import pytest

from proxywasm_host.testing import Response, sse

PATH = "/v1/chat/completions"


def asks(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "large", "messages": [{"role": "user", "content": text}], **more}


def answers(text: str) -> dict[str, Any]:
    return {"model": "large", "choices": [{"index": 0, "message": {"role": "assistant", "content": text}}]}


def told(outcome) -> str:
    """What the client is told."""
    (choice,) = outcome.response.json()["choices"]
    return choice["message"]["content"]


@pytest.fixture
def masking(filter):
    return filter(
        "ai-data-masking",
        deny_openai=True,
        deny_words=["forbidden"],
        deny_message="blocked",
        replace_roles=[
            {"regex": "%{MOBILE}", "type": "replace", "value": "****"},
            {
                "regex": "%{EMAILLOCALPART}@%{HOSTNAME:domain}",
                "type": "replace",
                "restore": True,
                "value": "***@$domain",
            },
            {"regex": "sk-[0-9a-zA-Z]*", "type": "hash", "restore": True},
        ],
    )


def test_data_is_hidden_from_the_model_and_shown_to_the_client(masking):
    def model(request):
        (hidden,) = [message["content"] for message in request.json()["messages"]]
        call, mail, use = hidden.split(", ")
        assert (call, mail) == ("call ****", "mail ***@example.com")
        assert use.removeprefix("use ") in (md5(b"sk-12345").hexdigest(), sha256(b"sk-12345").hexdigest())
        assert "content-length" not in request.headers
        return Response(json=answers(f"You said: {hidden}"))

    masking.upstream = model
    outcome = masking.post(
        PATH, {"content-length": "150"}, json=asks("call 13800138000, mail admin@example.com, use sk-12345")
    )
    assert told(outcome) == "You said: call ****, mail admin@example.com, use sk-12345"


@pytest.mark.parametrize("chunk_size", [None, 7, 100])
def test_what_was_hidden_is_restored_in_a_stream(masking, chunk_size):
    masking.upstream = sse(
        {"choices": [{"index": 0, "delta": {"role": "assistant", "content": "It is ***@example.com."}}]},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
        chunk_size=chunk_size,
    )
    response = masking.post(PATH, json=asks("mail admin@example.com", stream=True)).response
    assert "It is admin@example.com." in response.text
    assert response.complete


def test_a_word_in_the_question_is_answered_at_once(masking):
    outcome = masking.post(PATH, json=asks("this is forbidden"))
    assert (outcome.status, told(outcome)) == (200, "blocked")
    assert outcome.upstream is None


def test_who_asks_for_a_stream_is_answered_by_one(masking):
    response = masking.post(PATH, json=asks("this is forbidden", stream=True)).response
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.events()[0]["choices"][0]["delta"]["content"] == "blocked"


def test_a_word_in_the_answer_is_blocked_too(masking):
    masking.upstream = Response(json=answers("a forbidden word"))
    assert told(masking.post(PATH, json=asks("hi"))) == "blocked"


def test_other_words_pass(masking):
    masking.upstream = Response(json=answers("fine"))
    outcome = masking.post(PATH, json=asks("this is fine"))
    assert outcome.upstream.json() == asks("this is fine")
    assert outcome.response.json() == answers("fine")


def test_whole_bodies_can_be_searched(filter):
    masking = filter(
        "ai-data-masking",
        deny_openai=False,
        deny_raw=True,
        deny_words=["forbidden"],
        deny_code=451,
        deny_raw_message='{"error":"no"}',
        deny_content_type="application/problem+json",
    )
    response = masking.post("/notes", json={"note": "a forbidden one"}).response
    assert (response.status, response.json()) == (451, {"error": "no"})
    assert response.headers["content-type"] == "application/problem+json"


def test_one_field_can_be_searched(filter):
    masking = filter(
        "ai-data-masking", deny_openai=False, deny_jsonpath=["$.title"], deny_words=["forbidden"], deny_code=403
    )
    found = masking.post("/notes", json={"title": "a forbidden one", "text": ""})
    elsewhere = masking.post("/notes", json={"title": "", "text": "a forbidden one"})
    assert (found.status, elsewhere.status) == (403, 200)
