"""ai-data-masking, the plugin in Rust: words that may not pass, and data that is hidden from the model."""

from __future__ import annotations

from hashlib import md5, sha256
from typing import Any

import pytest

from .transcript import EVENTS, event

PATH = "/v1/chat/completions"


def asks(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "large", "messages": [{"role": "user", "content": text}], **more}


def answers(text: str) -> dict[str, Any]:
    return {"model": "large", "choices": [{"index": 0, "message": {"role": "assistant", "content": text}}]}


@pytest.fixture
def masking(load):
    return load(
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


def test_data_is_hidden_from_the_model_and_shown_to_the_client(masking, exchange):
    seen = exchange(masking).request(PATH, asks("call 13800138000, mail admin@example.com, use sk-12345"))

    (hidden,) = [message["content"] for message in seen.upstream.json["messages"]]
    call, mail, use = hidden.split(", ")
    assert (call, mail) == ("call ****", "mail ***@example.com")
    assert use.removeprefix("use ") in (md5(b"sk-12345").hexdigest(), sha256(b"sk-12345").hexdigest())
    assert "content-length" not in seen.upstream.headers

    seen.respond(answers(f"You said: {hidden}"))
    (choice,) = seen.client.json["choices"]
    assert choice["message"]["content"] == "You said: call ****, mail admin@example.com, use sk-12345"


def test_what_was_hidden_is_restored_in_a_stream(masking, exchange):
    seen = exchange(masking).request(PATH, asks("mail admin@example.com", stream=True))

    seen.respond(
        [
            event({"choices": [{"index": 0, "delta": {"role": "assistant", "content": "It is ***@example.com."}}]}),
            event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}),
            event("[DONE]"),
        ],
        **EVENTS,
    )

    assert b"It is admin@example.com." in seen.client.body
    assert seen.client.ended


def test_a_word_in_the_question_is_answered_at_once(masking, exchange):
    seen = exchange(masking).request(PATH, asks("this is forbidden"))

    assert seen.client.status == 200
    (choice,) = seen.client.json["choices"]
    assert choice["message"] == {"role": "assistant", "content": "blocked"}
    assert not seen.forwarded


def test_who_asks_for_a_stream_is_answered_by_one(masking, exchange):
    seen = exchange(masking).request(PATH, asks("this is forbidden", stream=True))

    assert seen.client.headers["content-type"].startswith("text/event-stream")
    assert seen.client.events[0]["choices"][0]["delta"]["content"] == "blocked"


def test_a_word_in_the_answer_is_blocked_too(masking, exchange):
    seen = exchange(masking).request(PATH, asks("hi")).respond(answers("a forbidden word"))

    (choice,) = seen.client.json["choices"]
    assert choice["message"]["content"] == "blocked"


def test_other_words_pass(masking, exchange):
    seen = exchange(masking).request(PATH, asks("this is fine"))
    assert seen.upstream.json == asks("this is fine")

    seen.respond(answers("fine"))
    assert seen.client.json == answers("fine")


def test_whole_bodies_can_be_searched(load, exchange):
    plugin = load(
        "ai-data-masking",
        deny_openai=False,
        deny_raw=True,
        deny_words=["forbidden"],
        deny_code=451,
        deny_raw_message='{"error":"no"}',
        deny_content_type="application/problem+json",
    )

    seen = exchange(plugin).request("/notes", {"note": "a forbidden one"})

    assert seen.client.status == 451
    assert seen.client.json == {"error": "no"}
    assert seen.client.headers["content-type"] == "application/problem+json"


def test_one_field_can_be_searched(load, exchange):
    plugin = load(
        "ai-data-masking", deny_openai=False, deny_jsonpath=["$.title"], deny_words=["forbidden"], deny_code=403
    )

    found = exchange(plugin).request("/notes", {"title": "a forbidden one", "text": ""})
    elsewhere = exchange(plugin).request("/notes", {"title": "", "text": "a forbidden one"})

    assert found.client.status == 403
    assert elsewhere.forwarded
