"""Wasm engines: what one provides (`protocol`), how it is found (`registry`), how compiled code is kept (`cache`)."""
