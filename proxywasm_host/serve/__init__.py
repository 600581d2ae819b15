"""``proxywasm serve``: filters in front of any HTTP server. Needs the extra ``serve``.

    client → uvicorn → `access_log` → `forwarded` → ProxyWasmMiddleware (`chain`) → `proxy` → `upstream`

`worker` is this stack as one ASGI application, `server` runs it in one process or several, `reload` puts a new chain
beside the old one, and `admin` shows it all: ``/metrics`` and a page.
"""
