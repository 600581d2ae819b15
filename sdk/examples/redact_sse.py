"""Redacts card numbers in a stream of server-sent events, event by event, wherever chunks end."""

from proxywasm import HttpFilter, register


def redacted(text):
    """`text` with each run of 13 to 19 digits replaced by stars, except its last four."""
    out, run = [], ""
    for c in text + "\0":
        if c.isdigit():
            run += c
            continue
        out.append("*" * (len(run) - 4) + run[-4:] if 13 <= len(run) <= 19 else run)
        out.append(c)
        run = ""
    return "".join(out)[:-1]


class RedactEvents(HttpFilter):
    def __init__(self):
        super().__init__()
        self.rest = b""
        self.events = False

    def on_response_headers(self, response):
        self.events = response.headers.get("content-type", "").startswith("text/event-stream")

    def on_response_body(self, response, chunk, end):
        if not self.events:
            return None
        whole, mark, self.rest = (self.rest + chunk).rpartition(b"\n\n")
        out = whole + mark
        if end:
            out, self.rest = out + self.rest, b""
        return redacted(out.decode()).encode()


register(RedactEvents)
