"""WebAssembly engines: their interface (`protocol`), their discovery (`registry`), and compiled code (`cache`).

A new engine is a separate distribution, like those in the folder ``engines`` of the project; docs/write-an-engine.md
describes how to write one.
"""
