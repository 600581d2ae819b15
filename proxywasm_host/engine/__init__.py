"""Wasm engines: what one must provide (`protocol`), how one is found (`registry`), how compiled code is kept (`cache`)."""
