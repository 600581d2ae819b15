"""Downloads images from OCI registries.

Source: the OCI distribution specification, and Docker's token specification. Only the requests of a download are
implemented. (Existing libraries limit neither time nor size, and do not check digests.)
"""

from __future__ import annotations

import json
from urllib.parse import urlencode
from urllib.request import parse_http_list, parse_keqv_list

from proxywasm_host.errors import FetchError
from proxywasm_host.fetch.credentials import DOCKER_HUB, Credentials
from proxywasm_host.fetch.image import INDEXES, MANIFESTS, MAX_MANIFEST, Absent, module_of
from proxywasm_host.fetch.reference import SHA256, Reference
from proxywasm_host.fetch.session import Answer, Session
from proxywasm_host.fetch.store import Store

__all__ = ["Registry"]

ACCEPT = {"accept": ", ".join((*MANIFESTS, *INDEXES))}
ROUNDS = 4
"""Three rounds fetch the index, the manifest and the layer; the last one reads the module."""


class Registry:
    """The repository of one image, for one fetch."""

    def __init__(
        self, session: Session, store: Store, reference: Reference, credentials: Credentials | None, most: int | None
    ) -> None:
        """Larger modules than `most` bytes are refused."""
        self._session = session
        self._store = store
        self._reference = reference
        self._credentials = credentials
        self._most = most
        self._authorization = ""

    async def resolve(self) -> str:
        """Look up the tag. Returns the digest of its present manifest, which is then in the store."""
        path = f"manifests/{self._reference.tag}"
        digest = (await self._get(path, ACCEPT, method="HEAD")).headers.get("docker-content-digest", "")
        if SHA256.fullmatch(digest) and self._store.blob(digest) is not None:
            return digest  # a request for its manifest would count as a download
        return self._store.put((await self._get(path, ACCEPT)).body)

    async def module(self, digest: str) -> bytes:
        """The module of an image. Parts that are not in the store are fetched."""
        for _ in range(ROUNDS):
            try:
                return module_of(self._store, digest, self._most)
            except Absent as absent:
                part = absent
            await self._fetch(part)
        raise FetchError(f"{digest} does not fit into the cache of modules")

    async def _fetch(self, part: Absent) -> None:
        """Put a part of an image into the store."""
        accept = ACCEPT if part.path.startswith("manifests") else {}
        found = self._store.put((await self._get(part.path, accept, part.most)).body)
        if found != part.digest:
            raise FetchError(f"{self._reference.host} sent {found} instead of {part.digest}")

    async def _get(self, path: str, headers: dict[str, str], most: int = MAX_MANIFEST, method: str = "GET") -> Answer:
        """Fetch a path from the registry. If the registry demands credentials, the request is repeated with them."""
        host = self._reference.host
        api = "registry-1.docker.io" if host == DOCKER_HUB else host
        url = f"{await self._session.scheme(api)}://{api}/v2/{self._reference.repository}/{path}"
        for authorized in (False, True):
            sent = {**headers, **({"authorization": self._authorization} if self._authorization else {})}
            answer = await self._session.send(method, url, sent, most=most)
            if answer.status != 401 or authorized:
                break
            self._authorization = await self._authorize(answer.headers.get("www-authenticate", ""))
        if answer.status in (401, 403):
            who = "the credentials for it" if self._credentials else "no credentials for it"
            raise FetchError(
                f"{host} answered {answer.status}, with {who} in Docker's configuration: docker login {host}"
            )
        if answer.status == 404:
            raise FetchError(f"{host} has no {self._reference.repository} with {path.rpartition('/')[2]}")
        if answer.status != 200:
            raise FetchError(f"{host} answered {answer.status} for {path}")
        return answer

    async def _authorize(self, challenge: str) -> str:
        """The value of ``Authorization`` for a challenge (RFC 9110, and Docker's token specification)."""
        scheme, _, rest = challenge.partition(" ")
        known = self._credentials
        if scheme.lower() == "basic":
            return known.basic if known else ""
        if scheme.lower() != "bearer":
            raise FetchError(f"{self._reference.host} demands authorization by {scheme[:50]!r}, which is not supported")
        if known and known.bearer:
            return f"Bearer {known.bearer}"
        try:
            said = parse_keqv_list(parse_http_list(rest))
            realm = said["realm"]
        except (ValueError, KeyError):
            raise FetchError(f"{self._reference.host} does not say where to get a token: {rest[:200]!r}") from None
        asked = {str(key): said[key] for key in ("service", "scope") if key in said}
        return f"Bearer {await self._token(realm, asked)}"

    async def _token(self, realm: str, asked: dict[str, str]) -> str:
        known = self._credentials
        if known and known.identity:
            form = {"grant_type": "refresh_token", "client_id": "proxywasm-host", **asked}
            answer = await self._session.send("POST", realm, form={**form, "refresh_token": known.identity})
        else:
            headers = {"authorization": known.basic} if known and known.basic else {}
            answer = await self._session.send(
                "GET", f"{realm}{'&' if '?' in realm else '?'}{urlencode(asked)}", headers
            )
        try:
            found = json.loads(answer.body) if answer.status == 200 else {}
            token = found.get("token") or found.get("access_token")
        except (ValueError, AttributeError):
            token = None
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise FetchError(
                f"{self._reference.host} gave no token (status {answer.status}): docker login {self._reference.host}"
            )
        return token
