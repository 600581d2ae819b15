"""What filters count, as Prometheus reads it."""

from __future__ import annotations

import time

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from proxywasm_host.integrations.asgi import Filter
from proxywasm_host.integrations.prometheus import ENVOY, HIGRESS, ISTIO, KUADRANT, SETS, FilterMetrics, Tag, families
from proxywasm_host.services import InMemoryMetrics
from proxywasm_host.services.metrics import COUNTER, GAUGE, HISTOGRAM
from proxywasm_host.services.shared import open_shared
from tests.support import code


def shown(metrics, **options) -> dict[str, float]:
    """Samples as text → value."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(FilterMetrics(metrics, **options))
    lines = generate_latest(registry).decode()
    assert list(text_string_to_metric_families(lines))
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines.splitlines() if line[0] != "#"}


AI = "wasmcustom_route_upstream_model"


def counted(*names: str, kind: int = COUNTER) -> InMemoryMetrics:
    metrics = InMemoryMetrics()
    for number, name in enumerate(names, 1):
        metrics.define(kind, name)
        metrics.add(kind, name, number)
    return metrics


@pytest.mark.parametrize(
    ("tags", "name", "sample"),
    [
        ((), "auth.denied", 'wasmcustom_auth_denied_total{name="auth.denied"}'),
        (ENVOY, "auth.upstream_rq_503", 'wasmcustom_auth_upstream_rq_total{envoy_response_code="503"}'),
        (ENVOY, "auth.upstream_rq_5xx", 'wasmcustom_auth_upstream_rq_total{envoy_response_code_class="5"}'),
        (
            ISTIO,
            "istio_requests_total;.;reporter=.=source;.;source_workload=.=web.v1;.;response_code=.=200;.;",
            'wasmcustom_istio_requests_total{reporter="source",response_code="200",source_workload="web.v1"}',
        ),
        (
            HIGRESS,
            "route.chat.upstream.outbound|443||qwen.dns.model.qwen-max.consumer.none.metric.input_token",
            f'{AI}_consumer_metric_input_token_total{{ai_cluster="outbound|443||qwen.dns",ai_consumer="none",ai_model="qwen-max",ai_route="chat"}}',
        ),
        (
            HIGRESS,
            "route.chat.upstream.qwen.model.qwen-max.metric.output_token",
            'wasmcustom_route_upstream_model_metric_output_token_total{ai_cluster="qwen",ai_model="qwen-max",ai_route="chat"}',
        ),
        (KUADRANT, "kuadrant.hits", 'wasmcustom_kuadrant_hits_total{name="kuadrant.hits"}'),
        (
            [Tag("tenant", r"^wasmcustom\.(tenant\.(.*?)\.)"), Tag("way", r"\.(in|out)$")],
            "tenant.a b.bytes.in",
            'wasmcustom_bytes_total{tenant="a b",way="in"}',
        ),
    ],
)  # fmt: skip
def test_labels_are_taken_out_of_names(tags, name, sample):
    assert shown(counted(name), tags=tags) == {sample: 1}


def test_names_that_would_be_one_are_two_by_name():
    tags = [Tag("who", r"(\.(a|b))$")]
    assert shown(counted("x.y.a", "x_y.a", "x.y.b"), tags=tags, prefix="") == {
        'x_y_total{who="a"}': 1,
        'x_y_total{name="x_y.a",who="a"}': 2,
        'x_y_total{who="b"}': 3,
    }


def test_histograms_and_gauges():
    metrics = counted("level", kind=GAUGE)
    metrics.record(HISTOGRAM, "size", 7)
    metrics.record(HISTOGRAM, "size", 10**9)
    told = shown(metrics, prefix="")
    assert told['level{name="level"}'] == 1
    assert told['size_bucket{le="5.0",name="size"}'] == 0
    assert told['size_bucket{le="10.0",name="size"}'] == 1
    assert told['size_bucket{le="+Inf",name="size"}'] == told['size_count{name="size"}'] == 2
    assert told['size_sum{name="size"}'] == 10**9 + 7


@pytest.mark.parametrize(
    ("name", "regex", "said"),
    [
        ("a-b", "(x)", "'a-b' cannot name a label: use letters, digits and _, and neither le nor name"),
        ("le", "(x)", "'le' cannot name a label"),
        ("a", "(", "'(' is not a regular expression: missing )"),
        ("a", "x", "'x' has no group: put the part to remove from the name in parentheses"),
    ],
)
def test_what_is_no_tag(name, regex, said):
    with pytest.raises(ValueError) as caught:
        Tag(name, regex)
    assert str(caught.value).startswith(said)


def test_a_collector_is_of_metrics():
    with pytest.raises(TypeError, match=r"^metrics must have a method snapshot"):
        FilterMetrics({})


def test_a_middleware_shows_what_its_filters_count_and_other_processes(carry, tmp_path):
    choice = f"processes:{tmp_path / 'state'}"
    script = "@on_request_headers\ndefine_metric 0 requests\nincrement_metric $token 2\n"
    served = carry(Filter(code("c/probe_0_2_1"), configuration=script), services=None, shared=choice)
    assert [served.get().status, served.get().status] == [200, 200]
    assert shown(served.app.metrics) == {'wasmcustom_requests_total{name="requests"}': 4}
    other = open_shared(choice)
    try:
        other.metrics.add(COUNTER, "requests", 10)
        other.metrics.merge()
        assert shown(served.app.metrics) == {'wasmcustom_requests_total{name="requests"}': 14}
    finally:
        other.metrics.close()
        served.app.metrics.close()


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("istio", "reporter=.="), ("istio", "xtag=.=;."), ("envoy", "_rq_"),
        ("higress", "upstream."), ("higress", "upstream.x.model."),
    ],
)  # fmt: skip
def test_names_that_are_made_to_be_searched(name, part):
    """Without an end, from each of many begins: of 64 MiB of such names, one scrape took an hour."""
    began = time.process_time()
    long = {part * (most // len(part)) + str(number): 1 for most in (1_900, 60_000) for number in range(40)}
    shown = list(families({"counters": long, "gauges": {}, "histograms": {}}, SETS[name]))
    assert sum(len(family.samples) for family in shown) == len(long)
    assert time.process_time() - began < 5


def test_labels_are_taken_out_of_two_mebibytes_of_names():
    names = {f"istiocustom.requests_total;.;reporter=.={number:04}{'a' * 1900};.;": 1 for number in range(1200)}
    shown = list(families({"counters": names, "gauges": {}, "histograms": {}}, ISTIO))
    labelled = [sample for family in shown for sample in family.samples if "reporter" in sample.labels]
    assert 1_000 < len(labelled) < 1_200
