"""A login as in OpenID Connect, with cookies. Configuration: {"provider": cluster, "url": …, "client": id}."""

from urllib.parse import quote, unquote, urlencode

from proxywasm import HttpFilter, Response, register

COOKIE = "session"


class Login(HttpFilter):
    async def on_request_headers(self, request):
        provider = self.config["provider"]
        path, _, _ = request.path.partition("?")
        form = {"content-type": "application/x-www-form-urlencoded"}
        if path == "/callback":
            body = urlencode({"grant_type": "authorization_code", "code": request.query.get("code", ""), "client_id": self.config["client"]})
            reply = await self.call(provider, "POST", "/token", headers=form, body=body)
            if reply is None or reply.status != 200:
                return Response(403, body="the provider says no\n")
            cookie = f"{COOKIE}={quote(reply.json()['access_token'], safe='')}; Path=/; HttpOnly; Secure"
            return Response(302, [("location", request.query.get("state", "/")), ("set-cookie", cookie)])
        token = unquote(request.cookies.get(COOKIE, ""))
        if token:
            reply = await self.call(provider, "POST", "/introspect", headers=form, body=urlencode({"token": token}))
            if reply is not None and reply.status == 200 and reply.json().get("active"):
                request.headers["x-user"] = reply.json()["sub"]
                return None
        query = urlencode({"response_type": "code", "client_id": self.config["client"], "state": request.path})
        return Response(302, {"location": f"{self.config['url']}?{query}"})


register(Login)
