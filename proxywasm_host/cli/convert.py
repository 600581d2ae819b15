"""``proxywasm convert``: writes a configuration in the form of another host."""

from __future__ import annotations

from pathlib import Path

import click

from proxywasm_host import remedy

__all__ = ["command"]

FORMS = ("own", "envoy", "istio", "higress", "gateway", "nginx")


@click.command("convert")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--to", "form", type=click.Choice(FORMS), required=True, help="The form to write; own is that of serve.")
@click.option("--strict", is_flag=True, help="Exit with 1 if that form cannot express a setting.")
def command(file: Path, form: str, strict: bool) -> None:
    """Write a configuration in another form, and list the settings that it cannot express.

    FILE has the form of `proxywasm serve`, or another one that it reads: Envoy's bootstrap or listener, WasmPlugin of
    Istio or Higress, TrafficExtension, EnvoyExtensionPolicy, MeshProxyPatch, nginx with ngx_wasm_module, APISIX.

    \b
    proxywasm convert gateway.yaml --to envoy > envoy.yaml
    proxywasm convert wasmplugin.yaml --to own
    """  # noqa: D301 - click wants the character
    try:
        from proxywasm_host.configuration.writers import WRITERS  # noqa: PLC0415 - the extra may be missing
        from proxywasm_host.serve.source import read_configuration  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise click.UsageError(f"proxywasm convert needs more: {remedy.missing('serve', error)}") from None
    own, _, _ = read_configuration(file)
    writer = WRITERS[form](own)
    click.echo(writer.write(), nl=False)
    for path in writer.cannot:
        click.echo(f"cannot be expressed in the form {form}: {path}", err=True)
    if strict and writer.cannot:
        raise SystemExit(1)
