"""The same application in four frameworks: ``/told`` says what it was asked, ``/echo`` gives the body back as it comes,
``/stream`` sends as many parts as it is asked for."""

import json

PART = b"0123456789abcdef" * 64


def told(method: str, path: str, query: str, headers) -> bytes:
    pairs = [[name, value] for name, value in headers]
    return json.dumps({"method": method, "path": path, "query": query, "headers": pairs}).encode()


def latin(headers):
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]


async def parts(number: int):
    import anyio

    for _ in range(number):
        yield PART
        await anyio.lowlevel.checkpoint()


async def again(given):
    for part in given:
        yield part


def starlette():
    from starlette.applications import Starlette
    from starlette.responses import Response, StreamingResponse
    from starlette.routing import Route

    async def say(request):
        url = request.url
        return Response(
            told(request.method, url.path, url.query, latin(request.scope["headers"])),
            headers={"content-type": "application/json"},
        )

    async def echo(request):
        return StreamingResponse(again([part async for part in request.stream()]))

    async def stream(request):
        return StreamingResponse(parts(int(request.query_params["parts"])))

    return Starlette(
        routes=[Route("/echo", echo, methods=["POST"]), Route("/stream", stream), Route("/{path:path}", say)]
    )


def fastapi():
    from fastapi import FastAPI, Request
    from fastapi.responses import Response, StreamingResponse

    app = FastAPI()

    @app.post("/echo")
    async def echo(request: Request):
        return StreamingResponse(again([part async for part in request.stream()]))

    @app.get("/stream")
    async def stream(number: int = 0, request: Request = None):  # type: ignore[assignment]
        return StreamingResponse(parts(int(request.query_params["parts"])))

    @app.api_route("/{path:path}", methods=["GET", "HEAD"])
    async def say(request: Request):
        url = request.url
        return Response(
            told(request.method, url.path, url.query, latin(request.scope["headers"])), media_type="application/json"
        )

    return app


def django():
    from django.conf import settings
    from django.core.asgi import get_asgi_application
    from django.http import HttpResponse, StreamingHttpResponse
    from django.urls import re_path

    def say(request):
        headers = request.headers.items()
        lower = [(name.lower(), value) for name, value in headers]
        return HttpResponse(
            told(request.method, request.path, request.META["QUERY_STRING"], lower), content_type="application/json"
        )

    async def echo(request):
        body = request.body
        return HttpResponse(body, content_type="application/octet-stream")

    async def stream(request):
        return StreamingHttpResponse(parts(int(request.GET["parts"])))

    import sys
    from types import ModuleType

    urls = ModuleType("tests_urls")
    urls.urlpatterns = [re_path("^echo$", echo), re_path("^stream$", stream), re_path("", say)]  # type: ignore[attr-defined]
    sys.modules["tests_urls"] = urls
    settings.configure(
        ROOT_URLCONF="tests_urls", ALLOWED_HOSTS=["*"], SECRET_KEY="of the tests", DATA_UPLOAD_MAX_MEMORY_SIZE=None
    )
    return get_asgi_application()


def quart():
    from quart import Quart, Response, request

    app = Quart(__name__)

    @app.post("/echo")
    async def echo():
        return Response(await request.get_data(), content_type="application/octet-stream")

    @app.get("/stream")
    async def stream():
        return parts(int(request.args["parts"])), 200

    @app.get("/", defaults={"path": ""})
    @app.get("/<path:path>")
    async def say(path):
        headers = [(name.lower(), value) for name, value in request.headers]
        return Response(
            told(request.method, request.path, request.query_string.decode(), headers), content_type="application/json"
        )

    return app


FRAMEWORKS = {"starlette": starlette, "fastapi": fastapi, "django": django, "quart": quart}
