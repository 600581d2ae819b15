"""Writes the resources that configure filters of Istio, Higress and Envoy Gateway."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from proxywasm_host.configuration.node import dotted
from proxywasm_host.configuration.writers.base import Part, Writer, module, to_yaml
from proxywasm_host.fetch.reference import is_remote


class IstioWriter(Writer):
    """A WasmPlugin of Istio for each filter."""

    api = "extensions.istio.io/v1alpha1"
    strategies: Mapping[str, str] = {"fail_open": "FAIL_OPEN", "fail_reload": "FAIL_RELOAD"}

    def write(self) -> str:
        """One document for each filter; the first has the highest priority."""
        documents = []
        filters = self._filters()
        for at, given in enumerate(filters):
            spec: dict[str, Any] = {"priority": 10 * (len(filters) - at)}
            name = given.take("name") or str(given.value.get("file", "")).rpartition("/")[2].partition(":")[
                0
            ].removesuffix(".wasm")
            spec |= self._source(given)
            if root_id := given.take("root_id"):
                spec["pluginName"] = root_id
            spec |= self._configuration(given)
            policy = given.take("failure_policy", "fail_reload")
            spec["failStrategy"] = self.strategies.get(policy, "FAIL_CLOSE")
            if policy == "fail_reload":
                given.take("reload_interval")
            if environment := given.take("environment"):
                spec["vmConfig"] = {"env": [{"name": key, "value": value} for key, value in environment.items()]}
            given.rest()
            documents.append(
                {"apiVersion": self.api, "kind": "WasmPlugin", "metadata": {"name": _dns(name)}, "spec": spec}
            )
        if self._own.take("profile", "envoy") != "envoy":
            self.cannot.append("profile")
        self._own.rest()
        return to_yaml(*documents)

    def _source(self, given: Part) -> dict[str, Any]:
        file = module(given)
        made: dict[str, Any] = {"url": file if is_remote(file) else f"file://{file}"}
        for key, theirs in (("sha256", "sha256"), ("pull_policy", "imagePullPolicy")):
            if said := given.take(key):
                made[theirs] = said
        return made

    def _configuration(self, given: Part) -> dict[str, Any]:
        configuration = given.take("configuration")
        if configuration is None:
            return {}
        value = as_value(configuration)
        if value is None:
            self.cannot.append(f"{dotted(given.path)}.configuration: it must be a mapping there")
            return {}
        return {"pluginConfig": value}


class HigressWriter(IstioWriter):
    """A WasmPlugin of Higress for each filter."""

    api = "extensions.higress.io/v1alpha1"

    def _configuration(self, given: Part) -> dict[str, Any]:
        configured = super()._configuration(given)
        made: dict[str, Any] = {"defaultConfig": configured["pluginConfig"]} if configured else {}
        rules = []
        for at, each in enumerate(given.take("rules", [])):
            rule = Part(each, (*given.path, "rules", at), self)
            found: dict[str, Any] = {
                theirs: names
                for key, theirs in (("routes", "ingress"), ("hosts", "domain"), ("clusters", "service"))
                if (names := rule.take(key))
            }
            if rule.take("disabled"):
                found["configDisable"] = True
            elif (value := as_value(rule.take("configuration"))) is not None:
                found["config"] = value
            rule.rest()
            if found == {"configDisable": True}:
                made["defaultConfigDisable"] = True
            else:
                rules.append(found)
        return made | ({"matchRules": rules} if rules else {})


class GatewayWriter(IstioWriter):
    """An EnvoyExtensionPolicy of Envoy Gateway."""

    def write(self) -> str:
        """One policy with all filters in their order."""
        wasm = []
        for given in self._filters():
            file, name = module(given), given.take("name")
            kind = "HTTP" if file.startswith(("http://", "https://")) else "Image"
            if not is_remote(file):
                self.cannot.append(f"{dotted(given.path)}.file: modules come from servers and registries there")
            source = {"url": file.removeprefix("oci://")} | ({"sha256": sha} if (sha := given.take("sha256")) else {})
            code = {"type": kind, "http" if kind == "HTTP" else "image": source}
            if policy := given.take("pull_policy"):
                code["pullPolicy"] = policy
            made: dict[str, Any] = {"name": name} if name else {}
            if root_id := given.take("root_id"):
                made["rootID"] = root_id
            made["code"] = code
            configured = self._configuration(given)
            made |= {"config": configured["pluginConfig"]} if configured else {}
            policy = given.take("failure_policy", "fail_reload")
            if policy == "fail_open":
                made["failOpen"] = True
            elif policy == "fail_reload":
                given.take("reload_interval")
                self.cannot.append(f"{dotted(given.path)}.failure_policy: fail_reload, it is fail_closed there")
            given.rest()
            wasm.append(made)
        self.cannot.append("which Gateway it is for: targetRefs names one that is called gateway")
        if self._own.take("profile", "envoy") != "envoy":
            self.cannot.append("profile")
        self._own.rest()
        target = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "gateway"}
        return to_yaml(
            {
                "apiVersion": "gateway.envoyproxy.io/v1alpha1",
                "kind": "EnvoyExtensionPolicy",
                "metadata": {"name": "filters"},
                "spec": {"targetRefs": [target], "wasm": wasm},
            }
        )


def _dns(name: str) -> str:
    """A name that Kubernetes accepts."""
    return re.sub(r"[^a-z0-9-]+", "-", name.lower()).strip("-") or "filter"


def as_value(value: Any) -> Any:
    """A configuration as a mapping; ``None`` if it is not one."""
    try:
        found = json.loads(value) if isinstance(value, (str, bytes)) else value
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
