"""Modules from elsewhere: HTTP servers and OCI registries, by reference, pinned by digest, kept on disk.

`reference` says what can be written, `fetcher` puts it together; `oci` knows images and registries, `session` makes
requests within limits, `credentials` reads Docker's configuration, `store` keeps what was fetched.
"""
