"""Images in a real registry: which are understood, that digests are enforced, what is asked for again, and when not."""

from __future__ import annotations

import gzip
import json

import pytest

from proxywasm_host import FilterConfig, Host, Services
from proxywasm_host.errors import FetchError
from tests.fetch.registry import (
    DOCKER,
    DOCKER_CONFIG,
    DOCKER_LAYER,
    OCI,
    OCI_INDEX,
    OCI_LAYER,
    WASM,
    digest,
    layer,
)
from tests.support import REQUEST, code

MODULE = code("rust/headers")
OTHER = code("rust/auth")
DOCUMENT = ("application/vnd.module.wasm.doc.v1+markdown", b"# What it is for")

IMAGES = {
    "Istio's": [(WASM, MODULE)],
    "of one layer": [(OCI_LAYER, layer({"plugin.wasm": MODULE}))],
    "Docker's": [(DOCKER_LAYER, layer({"./plugin.wasm": MODULE}))],
    "Higress's, with a document": [DOCUMENT, (OCI_LAYER, layer({"plugin.wasm": MODULE}))],
    "CNCF's": [("application/wasm", MODULE)],
    "of one layer, not zipped": [
        ("application/vnd.oci.image.layer.v1.tar", gzip.decompress(layer({"plugin.wasm": MODULE})))
    ],
}


@pytest.mark.parametrize("image", IMAGES)
def test_the_module_of_an_image(registry, fetcher, repository, image):
    docker = {"kind": DOCKER, "config": DOCKER_CONFIG} if image == "Docker's" else {}
    pushed = registry.push(repository, "1", *IMAGES[image], **docker)
    assert fetcher().pin(f"oci://{registry.host}/{repository}:1") == pushed
    assert fetcher().read(f"oci://{registry.host}/{repository}:1") == MODULE
    assert fetcher(directory=None).read(f"oci://{registry.host}/{repository}@{pushed}") == MODULE


@pytest.mark.parametrize(
    ("platforms", "expected"),
    [
        ({"linux/amd64": OTHER, "wasi/wasm": MODULE}, MODULE),
        ({"linux/arm64": OTHER, "linux/amd64": MODULE}, MODULE),
        ({"linux/arm64": MODULE}, MODULE),
    ],
)
def test_an_index_of_images_for_several_platforms(registry, fetcher, repository, platforms, expected):
    entries = []
    for number, (platform, module) in enumerate(platforms.items()):
        pushed = registry.push_wasm(repository, f"p{number}", module)
        system, _, architecture = platform.partition("/")
        entries.append(
            {"mediaType": OCI, "digest": pushed, "size": 1, "platform": {"os": system, "architecture": architecture}}
        )
    index = registry.manifest(repository, "all", {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries})
    assert fetcher().pin(f"oci://{registry.host}/{repository}:all") == index
    assert fetcher().read(f"oci://{registry.host}/{repository}:all") == expected


def test_a_filter_is_loaded_from_a_registry_and_called_by_its_image(engine, registry, fetcher, repository, log):
    pushed = registry.push_wasm(f"team/{repository}", "1", MODULE)
    image = f"oci://{registry.host}/team/{repository}:1"
    with Host(engine, services=Services(log=log), fetcher=fetcher()) as host:
        plugin = host.load_plugin(image, configuration="hello")
        assert (plugin.name, plugin.config.sha256) == (repository, pushed)
        stream = host.http_stream([plugin])
        (out,) = stream.request_headers(REQUEST, True)
        assert (b"x-wasm", b"hello") in out.headers


# -- Digests -----------------------------------------------------------------------------------------------------------


def test_what_is_pinned_is_what_is_loaded_whatever_the_tag_says(registry, fetcher, repository):
    image = f"oci://{registry.host}/{repository}:1"
    first = registry.push_wasm(repository, "1", MODULE)
    registry.push_wasm(repository, "1", OTHER)
    assert fetcher().read(f"{image}@{first}") == MODULE
    assert fetcher().read(image, sha256=first) == MODULE
    assert fetcher().read(image, sha256=first.removeprefix("sha256:").upper()) == MODULE
    assert fetcher().read(image) == OTHER
    with pytest.raises(FetchError, match=f"has no {repository} with sha256:00"):
        fetcher().read(image, sha256="0" * 64)
    with pytest.raises(FetchError, match="is pinned to two digests"):
        fetcher().read(f"{image}@{first}", sha256="0" * 64)


def test_a_registry_whose_files_were_changed_is_found_out(mortal, fetcher):
    pushed = mortal.push_wasm("changed", "1", MODULE)
    [stored] = [file for file in mortal.directory.glob("storage/**/data") if file.stat().st_size == len(MODULE)]
    stored.write_bytes(OTHER.ljust(len(MODULE), b"\0")[: len(MODULE)])
    for image in ("changed:1", f"changed@{pushed}"):
        with pytest.raises(FetchError, match=f"instead of {digest(MODULE)}"):
            fetcher().read(f"oci://{mortal.host}/{image}")


def test_a_cache_whose_files_were_changed_is_found_out(registry, fetcher, repository, tmp_path):
    registry.push_wasm(repository, "1", MODULE)
    image = f"oci://{registry.host}/{repository}:1"
    fetcher().read(image)
    (tmp_path / f"cache/modules/blobs/{digest(MODULE).replace(':', '-')}").write_bytes(OTHER)
    assert fetcher().read(image) == MODULE


def test_bytes_and_files_can_be_pinned_too(engine, tmp_path):
    file = tmp_path / "filter.wasm"
    file.write_bytes(MODULE)
    with Host(engine) as host:
        for source in (MODULE, str(file), file, f"file://{file}"):
            assert host.load_plugin(FilterConfig(source, sha256=digest(MODULE))).config.code == source
            with pytest.raises(FetchError, match=f"the module has {digest(MODULE)}, but is pinned to sha256:11"):
                host.load_plugin(FilterConfig(source, sha256="1" * 64))


# -- What is asked for again -------------------------------------------------------------------------------------------


def asked(registry, repository: str) -> list[str]:
    """What was asked of a repository since the last push."""
    found = [line.replace(f"/v2/{repository}/", "") for line in registry.requests if f"/{repository}/" in line]
    last = max(number for number, line in enumerate(found) if line.startswith("PUT"))
    return found[last + 1 :]


@pytest.mark.parametrize(
    ("tag", "policy", "again"),
    [
        ("1", None, []),
        ("1", "Always", ["HEAD manifests/1"]),
        ("latest", None, ["HEAD manifests/latest"]),
        ("latest", "IfNotPresent", []),
    ],
)
def test_what_is_there_is_asked_for_again_by_policy(registry, fetcher, repository, tag, policy, again):
    pushed = registry.push_wasm(repository, tag, MODULE)
    image = f"oci://{registry.host}/{repository}" + (":1" if tag == "1" else "")
    first = fetcher()
    digest_now = first.pin(image, policy=policy)
    first.loaded(image, digest_now)
    before = asked(registry, repository)
    assert before == [f"HEAD manifests/{tag}", f"GET manifests/{tag}", f"GET blobs/{digest(MODULE)}"]
    assert fetcher().read(image, policy=policy) == MODULE
    assert asked(registry, repository)[len(before) :] == again
    assert fetcher().read(image, sha256=pushed, policy="Always") == MODULE  # a digest is never asked for again
    assert asked(registry, repository)[len(before) + len(again) :] == []


def test_a_registry_that_is_down_keeps_nobody_from_what_was_loaded_before(mortal, fetcher, caplog):
    image = f"oci://{mortal.host}/filter"
    mortal.push_wasm("filter", "latest", MODULE)
    with Host(fetcher=fetcher()) as host:
        host.load_plugin(image)
    broken = mortal.push_wasm("filter", "latest", b"\0asm, or so")
    with Host(fetcher=fetcher()) as host, pytest.raises(Exception, match="WebAssembly"):
        host.load_plugin(image)
    mortal.stop()
    down = fetcher()
    assert [down.read(image), down.read(image)] == [MODULE, MODULE]  # and not what was never good
    assert [record.getMessage().partition(";")[2] for record in caplog.records] == [
        f" the module that was loaded last is used, {down.pin(image)}"
    ]
    with pytest.raises(FetchError, match=f"localhost:{mortal.port}"):
        down.read(f"oci://{mortal.host}/other")
    with pytest.raises(FetchError, match=f"localhost:{mortal.port}"):
        fetcher(directory=None).read(image)
    mortal.start()
    assert down.pin(image) == broken


def test_an_image_that_is_gone_is_gone(mortal, fetcher):
    """A registry that answers is believed: what was taken back is not to be used any more."""
    image = f"oci://{mortal.host}/filter"
    pushed = mortal.push_wasm("filter", "latest", MODULE)
    used = fetcher()
    used.loaded(image, used.pin(image))
    with mortal.client() as client:
        assert client.delete(f"/v2/filter/manifests/{pushed}").status_code == 202
    with pytest.raises(FetchError, match=r"has no filter with latest"):
        used.read(image)


# -- What cannot be used -----------------------------------------------------------------------------------------------

BROKEN = {
    "nothing in it": ([], "the image holds no module: it has no layers"),
    "a document": ([DOCUMENT], "it has 'application/vnd.module.wasm.doc.v1.markdown'"),
    "two modules": ([(WASM, MODULE), (WASM, OTHER)], "2 layers that could hold the module"),
    "two layers": ([(OCI_LAYER, layer({"a": b""})), (OCI_LAYER, layer({"plugin.wasm": MODULE}))], "2 layers"),
    "no plugin.wasm": ([(OCI_LAYER, layer({"filter.wasm": MODULE}))], "layer has no plugin.wasm"),
    "not zipped": ([(OCI_LAYER, b"no gzip")], "not what gzip makes"),
    "cut": ([(OCI_LAYER, layer({"plugin.wasm": MODULE})[:-20])], "ends early"),
    "no archive": ([(OCI_LAYER, gzip.compress(b"x" * 2000))], "not a tar archive"),
    "larger than modules may be": ([(WASM, bytes(3 << 20))], "3145728 bytes"),
    "larger, zipped": ([(OCI_LAYER, layer({"plugin.wasm": bytes(3 << 19)}))], "plugin.wasm has 1572864 bytes"),
    "much larger, zipped": ([(OCI_LAYER, gzip.compress(bytes(200 << 20)))], "unpacks to more than"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_an_image_that_cannot_be_used(registry, fetcher, repository, what):
    layers, said = BROKEN[what]
    registry.push(repository, "1", *layers)
    with pytest.raises(FetchError, match=said):
        fetcher().read(f"oci://{registry.host}/{repository}:1", most=1 << 20)


def test_a_manifest_that_is_none(fetcher, tmp_path):
    store = fetcher()._store
    for content, said in (
        (b"[]", "is not a JSON object"),
        (b"{", "is not a JSON object"),
        (b"[" * 100_000, "is not a JSON object"),
        (b'{"layers": 5}', "no layers"),
        (b'{"manifests": [1, {}]}', "something else than SHA-256"),
        (b'{"manifests": []}', "the image is for nothing"),
        (json.dumps({"layers": [{"mediaType": WASM, "digest": "sha512:00"}]}).encode(), "something else than SHA-256"),
        (json.dumps({"layers": [{"mediaType": WASM, "digest": "sha256:../../etc"}]}).encode(), "something else"),
    ):
        with pytest.raises(FetchError, match=said):
            fetcher().read("oci://localhost:1/name", sha256=store.put(content))
