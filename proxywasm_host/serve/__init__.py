"""``proxywasm serve``: filters in front of any HTTP server. Needs the extra ``serve``.

    client → `protocol` → `application` → `forwarded` → filters (`chain`) → `proxy` → `upstream`

`wire` is HTTP/1.1 as bytes, for both sides; `server` runs the application in one process or several, on uvicorn;
`reload` puts a new chain beside the old one, and `admin` shows it all: ``/metrics`` and a page.
"""
