"""``serve`` on the data plane in Rust (`proxywasm_dataplane`): HTTP is hyper's, filters and all else are ours."""
