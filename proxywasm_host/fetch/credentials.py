"""Reads the credentials that ``docker login`` has stored for registries.

Source: Docker's ``config.json`` (``auths``, ``credHelpers``, ``credsStore``), and the protocol of
docker/docker-credential-helpers. A key may also name a part of a registry (``registry.example/team``), as in Kubernetes
and Podman. The longest matching key counts.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proxywasm_host.errors import FetchError

__all__ = ["DOCKER_HUB", "Credentials", "default_config", "find_credentials"]

DOCKER_HUB = "docker.io"
HUB_KEY = "https://index.docker.io/v1/"
"""The key of Docker's own registry in ``config.json``."""
HELPER_SECONDS = 30
logger = logging.getLogger("proxywasm_host.fetch")


@dataclass(frozen=True, repr=False)
class Credentials:
    """A user and a password, or instead a token that is exchanged (`identity`) or sent (`bearer`)."""

    user: str = ""
    password: str = ""
    identity: str = ""
    bearer: str = ""

    @property
    def basic(self) -> str:
        """The value of ``Authorization``; empty without a password."""
        if not self.password:
            return ""
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()


def default_config(environment: Mapping[str, str] = os.environ) -> Path | None:
    """The path of Docker's configuration: ``$DOCKER_CONFIG/config.json`` or ``~/.docker/config.json``, or ``None``."""
    if chosen := environment.get("DOCKER_CONFIG"):
        return Path(chosen) / "config.json"
    try:
        return Path.home() / ".docker" / "config.json"
    except RuntimeError:  # no home directory
        return None


def find_credentials(file: Path | None, host: str, repository: str) -> Credentials | None:
    """The credentials for an image's registry, or ``None``. This may start a helper.

    `file` is the configuration, and may be missing. Raises: FetchError, if it cannot be read or a helper fails.
    """
    config = _read(file)
    helper = _section(config, "credHelpers").get(host) or config.get("credsStore")
    if isinstance(helper, str) and helper:
        found = _ask(helper, HUB_KEY if host == DOCKER_HUB else host)
        if found is not None:
            return found
    auths = {_normal(key): value for key, value in _section(config, "auths").items() if isinstance(value, dict)}
    name = f"{host}/{repository}"
    fitting = [key for key in auths if key in (host, name) or name.startswith(f"{key}/")]
    return _written(auths[max(fitting, key=len)], host, file) if fitting else None


def _read(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        config = json.loads(file.read_bytes())
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise FetchError(f"cannot read the credentials in {file}: {error.strerror}") from None
    except ValueError:
        raise FetchError(f"cannot read the credentials in {file}: it is not JSON") from None
    return config if isinstance(config, dict) else {}


def _section(config: dict[str, Any], name: str) -> dict[str, Any]:
    found = config.get(name)
    return found if isinstance(found, dict) else {}


def _normal(key: str) -> str:
    """The name of a registry, without scheme and version of the API; ``docker.io`` for Docker's own."""
    if key == HUB_KEY:
        return DOCKER_HUB
    return re.sub(r"^https?://|/v[12]/?$|/$", "", key)


def _written(entry: dict[str, Any], host: str, file: Path | None) -> Credentials | None:
    user, password = entry.get("username", ""), entry.get("password", "")
    if entry.get("auth"):
        try:
            user, colon, password = base64.b64decode(entry["auth"], validate=True).decode().partition(":")
        except (TypeError, ValueError, binascii.Error):
            colon = ""
        if not colon:
            raise FetchError(f"{file}: auths.{host}.auth is not the Base64 form of user:password")
    found = Credentials(user, password, entry.get("identitytoken", ""), entry.get("registrytoken", ""))
    return None if found == Credentials() else found


def _ask(helper: str, host: str) -> Credentials | None:
    """The credentials from a helper; ``None`` if it is not installed or has none for this registry."""
    if not re.fullmatch(r"[\w.-]+", helper):
        raise FetchError(f"{helper!r} is not the name of a credential helper")
    program = shutil.which(f"docker-credential-{helper}")
    if program is None:
        logger.warning("docker-credential-%s is not installed, so its credentials for %s are not used", helper, host)
        return None
    try:
        done = subprocess.run(  # noqa: S603 - the operator has configured it
            [program, "get"], input=host.encode(), capture_output=True, timeout=HELPER_SECONDS, check=False
        )
        answer = json.loads(done.stdout) if done.returncode == 0 else None
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise FetchError(f"docker-credential-{helper} failed for {host}: {error}") from None
    if answer is None:
        said = (done.stdout or done.stderr).decode("utf-8", "replace").strip()
        if "credentials not found" in said:  # the text that the protocol prescribes
            return None
        raise FetchError(
            f"docker-credential-{helper} failed for {host}: {said[:200] or f'exit code {done.returncode}'}"
        )
    user, secret = answer.get("Username", ""), answer.get("Secret", "")
    return Credentials(identity=secret) if user == "<token>" else Credentials(user, secret)
