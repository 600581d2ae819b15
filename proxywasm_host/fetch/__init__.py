"""Modules from HTTP servers and OCI registries: found by reference, pinned by digest, stored on disk.

`reference` parses references, and `fetcher` fetches their modules. `image` finds the module in an image, `oci`
downloads from registries, `session` makes requests within limits, `credentials` reads Docker's configuration, and
`store` has the fetched modules.
"""
