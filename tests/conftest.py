"""A real broker for whoever asks, and in CI no skipping of what needs the kernel, the broker or a guest."""

import gc
import importlib.util
import os
import signal
import uuid
import warnings
from pathlib import Path

import hypothesis
import pytest

# How long an example takes says what else runs on the machine.
hypothesis.settings.register_profile("project", deadline=None)
hypothesis.settings.load_profile("project")

_SCRIPT = Path(__file__).parent.parent / "deploy" / "kafka" / "broker.py"
_spec = importlib.util.spec_from_file_location("broker_script", _SCRIPT)
script = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(script)


# kafka-python 3.0.12 leaves to the garbage collector sockets whose connection was refused, which have no address of
# ours, and the socket pair that wakes its loop, when the client that made it finds no broker.
_LEFT = (r"unclosed <socket.*laddr=\('0\.0\.0\.0'", "unclosed <socket.*family=1,")


def pytest_configure(config):
    os.environ["COLUMNS"] = "120"  # what is shown follows no terminal
    # kafka-python 3.0.12 loads its protocol schemas through a function that Python 3.11 and 3.12 call deprecated.
    config.addinivalue_line("filterwarnings", "ignore:(read|open)_text is deprecated:DeprecationWarning")
    for left in _LEFT:
        config.addinivalue_line("filterwarnings", f"ignore:{left}:ResourceWarning")


# Behind the last test filters hold no more.
def pytest_sessionfinish():
    with warnings.catch_warnings():
        for left in _LEFT:
            warnings.filterwarnings("ignore", left, ResourceWarning)
        gc.collect()


def _needs_the_machine(item):
    return any(item.get_closest_marker(name) for name in ("kernel", "broker", "guest"))


# What measures schedulers comes last: by then nothing computes beside it.
def pytest_collection_modifyitems(items):
    items.sort(key=_turn)


def _turn(item):
    if item.get_closest_marker("guest"):
        return 2
    return int(_needs_the_machine(item) and "producers" in item.path.parts)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    needed = _needs_the_machine(item)
    if report.skipped and needed and os.environ.get("CI") and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome, report.longrepr = "failed", f"skipped in CI, which counts as a failure: {reason}"
    return report


class Broker:
    """One broker process; `bootstrap` stays the same over restarts."""

    def __init__(self, base, tls=None, user=None):
        self.base, self.tls_port = base, script.free_port()
        script.configure(base, script.free_port(), tls, user, self.tls_port)
        self.bootstrap = script.start(base)

    def start(self):
        assert script.start(self.base) == self.bootstrap

    def stop(self):
        script.stop(self.base)

    def kill(self):
        script.stop(self.base, signal.SIGKILL)


@pytest.fixture(scope="session")
def broker_factory(tmp_path_factory):
    try:
        script.fetch_jars()
    except script.BrokerError as e:
        pytest.skip(str(e))
    brokers = []

    def make(**kwargs):
        brokers.append(Broker(tmp_path_factory.mktemp("broker"), **kwargs))
        return brokers[-1]

    yield make
    for each in brokers:
        each.stop()


@pytest.fixture(scope="session")
def broker(broker_factory):
    return broker_factory()


@pytest.fixture
def topics():
    """Call for a topic name that nobody used before."""
    return lambda name="t": f"{name}.{uuid.uuid4().hex[:8]}"
