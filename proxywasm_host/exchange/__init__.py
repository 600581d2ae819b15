"""One whole request and its response through a chain of filters, in one call. Nothing is contacted.

    with Host() as host:
        auth = host.load_plugin("auth.wasm", configuration="callout:idp")
        result = exchange(host, [auth], Message.request("GET", "http://example.com/"), callouts={"idp": reply})
    result.client_response.status, result.upstream_request, result.logs

Rules:

* Upstream answers once the whole request has come out to it. A request that stays paused, is reset or is answered
  by a filter never reaches it.
* A callout to a cluster of `callouts` gets its reply from there, as soon as the callback has returned (or, with
  `late_replies`, once the whole message has been fed). The host's own clusters are known too, but nobody answers for
  them; what the host refuses is in `Exchange.refused`.
* Time stands still: `ticks` says how many ticks may pass while something is paused.
* The stream is closed at the end, whatever became of it; plugins and host stay open.
"""

from proxywasm_host.exchange.message import Message
from proxywasm_host.exchange.record import Fed, Invocation, Recorder
from proxywasm_host.exchange.result import Exchange
from proxywasm_host.exchange.run import Answer, exchange

__all__ = ["Answer", "Exchange", "Fed", "Invocation", "Message", "Recorder", "exchange"]
