"""Benchmarks run once, to see that they work, unless ``--benchmark-enable`` asks what they cost."""


def pytest_configure(config):
    config.option.benchmark_disable = config.option.benchmark_disable_gc = True
