"""Logs each finished request as a line of JSON, and counts responses by status."""

import json
from collections import Counter
from dataclasses import dataclass

from proxywasm import HttpFilter, log, register

total = Counter()


@dataclass
class Entry:
    method: str
    path: str
    status: int = 0
    size: int = 0


class RequestLog(HttpFilter):
    def on_request_headers(self, request):
        self.entry = Entry(request.method, request.path)

    def on_response_headers(self, response):
        self.entry.status = response.status

    def on_response_body(self, response, chunk, end):
        self.entry.size += len(chunk)

    def on_log(self):
        entry = self.entry
        total[entry.status] += 1
        log.info(json.dumps({"method": entry.method, "path": entry.path, "status": entry.status, "size": entry.size, "count": total[entry.status]}))


register(RequestLog)
