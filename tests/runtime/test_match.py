"""Which requests a filter is for, and what it is configured with for them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from proxywasm_host import FilterConfig, Match, Rule, by_rule, matching
from tests.support import FILTERS

PROBE = FILTERS / "c/probe_0_2_1.wasm"
ISTIO = "outbound|80||web.default.svc.cluster.local"


@pytest.mark.parametrize(
    ("match", "fits", "differs"),
    [
        (Match(), ["h /", " "], []),
        (Match(hosts=["API.example.com"]), ["api.example.com /", "API.Example.com:8080 /"], ["a.api.example.com /", " /"]),
        (Match(hosts=["*.example.com", "[::1]"]), ["a.b.example.com /", "[::1]:81 /", "[::1] /"], ["example.com /"]),
        (Match(hosts=["www.*"]), ["www.example.com /"], ["a.www.com /"]),
        (Match(hosts=["*"]), ["h /", " /"], []),
        (Match(paths=["/a", "/b/*", "*.png"]), ["h /a?x=/b", "h /b/c", "h /x.png?y"], ["h /a/", "h /b", "h /?/b/"]),
        (Match(routes=["r1", "api-*"]), ["h / r1", "h / api-2"], ["h / r11", "h /"]),
        (Match(clusters=["web"]), ["h / r web"], ["h / r webs", "h / r " + ISTIO]),
        (Match(clusters=["web.default.svc.cluster.local"]), ["h / r " + ISTIO], ["h / r a|b"]),
        (Match(clusters=["web.default.svc.cluster.local:80"]), ["h / r " + ISTIO], ["h / r x|81||web.default.svc.cluster.local"]),
        (Match(hosts=["a"], paths=["/x"]), ["a /x"], ["a /y", "b /x"]),
        (Match(hosts=["a"], unless=[Match(paths=["/x"]), Match(routes=["r"])]), ["a /y"], ["a /x", "a /y r", "b /y"]),
    ],
)  # fmt: skip
def test_a_request_fits_what_is_said_of_it(match, fits, differs):
    plugin = SimpleNamespace(config=FilterConfig(PROBE, match=match))

    def passes(request: str) -> bool:
        authority, path, route, cluster = [*request.split(" "), "", ""][:4]
        known = {"xds.route_name": route, "xds.cluster_name": cluster.encode()}
        return matching([plugin], authority.encode(), path.encode(), known) == [plugin]

    assert [request for request in fits if not passes(request)] == []
    assert [request for request in differs if passes(request)] == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"hosts": "a.example"}, r"hosts are a list, even of one: write \['a.example'\]"),
        ({"hosts": {"a.example"}}, r"hosts are a list, even of one"),
        ({"paths": [b"/"]}, r"paths are a list of str, not of b'/'"),
        ({"unless": Match()}, "unless are a list, even of one"),
        ({"unless": ["/x"]}, "unless are a list of Match, not of '/x'"),
        ({"hosts": ["a.*.com"]}, r"'a\.\*\.com' is not one of hosts: a \* stands at the beginning or the end"),
        ({"routes": [""]}, r"'' is not one of routes"),
    ],
)
def test_what_is_no_match(arguments, said):
    with pytest.raises((TypeError, ValueError), match=said):
        Match(**arguments)


def test_a_filter_takes_nothing_else_for_a_match():
    with pytest.raises(TypeError, match=r"^a match is Match\(hosts=…, paths=…\), not 'a'$"):
        FilterConfig(PROBE, match="a")
    with pytest.raises(ValueError, match="a filter has a match or rules, not both"):
        by_rule(FilterConfig(PROBE, match=Match()), [])


SAYS = "@on_request_headers\nadd_header_map_value 0 x-said {}\n"
RULES = [
    Rule(Match(hosts=["a"], unless=[Match(paths=["/not"])]), SAYS.format("a")),
    Rule(Match(paths=["/off*"]), None),
    Rule(Match(routes=["r"]), SAYS.format("r")),
]


def test_the_first_rule_that_fits_says_what_a_filter_is_configured_with(proxywasm):
    filter = proxywasm(by_rule(FilterConfig(PROBE, configuration=SAYS.format("else"), vm_id="v"), RULES))

    def said(url: str, **properties: str) -> str | None:
        return filter.get(url, properties=properties).upstream.headers.get("x-said")

    assert said("http://a/") == said("http://a:81/off") == "a"
    assert said("http://a/not") == said("http://b/") == "else"
    assert said("http://b/off/x") is None
    assert said("http://b/", route_name="r") == "r"
    assert len({plugin._vm for plugin in filter.plugins}) == 1


def test_a_rule_for_all_leaves_nothing_for_the_filters_own_configuration():
    filter = FilterConfig(PROBE, configuration="own")
    for last, found in ((Rule(Match(), None), ["a"]), (Rule(Match(), "all"), ["a", "all"])):
        rules = [Rule(Match(hosts=["a"]), "a"), last, Rule(Match(hosts=["b"]), "b")]
        assert [each.configuration for each in by_rule(filter, rules)] == found
    assert [each.configuration for each in by_rule(filter, [])] == ["own"]
