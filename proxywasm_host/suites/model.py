"""The model of a suite in YAML.

Its JSON schema is published as ``docs/suite.schema.json`` and printed by ``proxywasm test --schema``.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal, Union

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from proxywasm_host.errors import not_among
from proxywasm_host.testing.profiles import HOST_PROFILES

__all__ = ["Answer", "Expectation", "Expected", "Match", "Message", "Request", "Response", "Step", "Suite", "Test"]


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


def _pattern(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"{value!r} is not a regular expression: {error}") from None
    return value


def _profile(value: str) -> str:
    if value not in HOST_PROFILES:
        raise ValueError(not_among("profile", value, HOST_PROFILES))
    return value


def _written(value: Any) -> Any:
    """Convert numbers and booleans, as YAML reads them, to text."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, (int, float)) else value


Text = Annotated[str, BeforeValidator(_written)]


class Match(Model):
    """Conditions on a text; all that are given must hold."""

    regex: Annotated[str | None, AfterValidator(lambda value: value and _pattern(value))] = None
    """Must match the whole text."""
    contains: Text | None = None
    absent: Text | None = None
    """Must not be in the text."""

    @model_validator(mode="after")
    def _says_something(self) -> Match:
        if not self.model_fields_set:
            raise ValueError("give regex, contains or absent; an exact text is written as it is")
        return self


Expected = Union[Text, Match]
Headers = dict[str, Union[Text, list[Text]]]


class Message(Model):
    """A body, whole or in parts, with headers and trailers. A name with a list of values is sent once for each."""

    headers: Headers = Field(default_factory=dict)
    body: Text | None = None
    chunks: list[Text] = Field(default_factory=list)
    chunk_size: Annotated[int | None, Field(gt=0)] = None
    """Bytes in each part of `body`."""
    trailers: Headers = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_body(self) -> Message:
        if self.chunks and self.body is not None:
            raise ValueError("give body or chunks, not both")
        if self.chunk_size is not None and self.body is None:
            raise ValueError("chunk_size needs a body")
        return self


class Request(Message):
    """The client's request."""

    method: str | None = None
    """GET by default; POST with a body."""
    url: str = "http://example.com/"


class Response(Message):
    """Upstream's response."""

    status: Annotated[int, Field(ge=100, le=999)] = 200


class Answer(Model):
    """The answer of a cluster to a callout. For gRPC, `status` is the gRPC status and `body` the message."""

    status: Annotated[int, Field(ge=0, le=999)] = 200
    headers: Headers = Field(default_factory=dict)
    body: Text = ""
    after: Annotated[float, Field(ge=0, strict=False)] = 0
    """Seconds until the answer arrives."""


Answers = Union[Annotated[int, Field(ge=0, le=999)], Literal["fail", "never"], Answer]


class ExpectedMessage(Model):
    """Expected headers, body and trailers. Null stands for an absent header. Omitted parts are not compared."""

    headers: dict[str, Expected | None] = Field(default_factory=dict)
    body: Expected | None = None
    trailers: dict[str, Expected | None] = Field(default_factory=dict)


class ExpectedRequest(ExpectedMessage):
    method: Expected | None = None
    path: Expected | None = None


class ExpectedResponse(ExpectedMessage):
    status: int | None = None


class ExpectedCallout(ExpectedRequest):
    """A callout that a filter must make. All fields but `cluster` are for HTTP."""

    cluster: Expected | None = None


class Expectation(Model):
    """The expected results of a step."""

    upstream: Union[ExpectedRequest, Literal[False], None] = None
    """The request that upstream gets; false if it must get none."""
    response: Union[ExpectedResponse, Literal[False], None] = None
    """The response that the client gets; false if it must get none."""
    local: bool | None = None
    """Whether a filter answers instead of upstream."""
    details: Expected | None = None
    """Envoy's response code details."""
    logs: list[Expected] = Field(default_factory=list)
    """Each must match a line of the log."""
    no_logs: list[Expected] = Field(default_factory=list)
    """None of them may match a line."""
    callouts: list[ExpectedCallout] | None = None
    """All callouts of the step, in their order."""
    metrics: dict[str, int] = Field(default_factory=dict)
    """Values by name, after the step."""
    paused: Literal["request", "response", False] = False
    """The message that a filter still holds at the end."""
    failure: bool | Expected = False
    """Whether the filter fails, or the message of its failure."""


class Step(Model):
    """One request through the filters."""

    request: Request = Field(default_factory=Request)
    upstream: Union[Response, Annotated[int, Field(ge=100, le=999)]] = Field(default_factory=Response)
    """Upstream's response; a number is its status."""
    callouts: dict[str, Union[Answers, list[Answers]]] = Field(default_factory=dict)
    """The answers of each cluster: a status, ``fail``, ``never``, an answer, or a list with one for each call."""
    properties: dict[str, Union[str, int, float, bool]] = Field(default_factory=dict)
    advance: Annotated[float, Field(ge=0, strict=False)] = 0
    """Seconds that pass after the request. While a filter holds something, up to a minute passes without this."""
    expect: Expectation = Field(default_factory=Expectation)


def _configuration(value: Any) -> Any:
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)


Configuration = Annotated[Any, AfterValidator(_configuration)]


class Settings(Model):
    """Settings of a suite for all of its tests, or of one test."""

    configuration: Configuration = None
    """Filters get a text unchanged, and anything else as JSON."""
    profile: Annotated[str | None, AfterValidator(lambda value: value and _profile(value))] = None
    time: Annotated[float | None, Field(ge=0, strict=False)] = None
    """The time at which the filters start, in seconds since 1970; by default 14 November 2023, 22:13:20 UTC."""


class Test(Settings, Step):
    """A test with a name and one step, or with `steps`, which go through the same filters one after the other."""

    name: Annotated[str, Field(min_length=1)]
    steps: list[Step] = Field(default_factory=list)

    @model_validator(mode="after")
    def _steps_or_step(self) -> Test:
        if self.steps and (own := self.model_fields_set & set(Step.model_fields)):
            raise ValueError(f"a test with steps has {min(own)} in its steps")
        return self


class Suite(Settings):
    """A file: filters, their settings, and tests."""

    filter: Union[str, list[str]]
    """A module, or several that make a chain in the order of the request; paths begin at the suite's folder. A
    configuration (of Envoy, nginx, …, or serve's own) stands for its filters."""
    tests: Annotated[list[Test], Field(min_length=1)]
