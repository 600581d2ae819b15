"""Each benchmark runs only once, as a test, unless ``--benchmark-enable`` makes it measure."""


def pytest_configure(config):
    config.option.benchmark_disable = config.option.benchmark_disable_gc = True
