"""The route and the inhibition that are shipped, as Alertmanager itself reads them."""

import shutil
import subprocess
from pathlib import Path

import pytest

from consumers.alerts.payload import Whose
from consumers.lake.storage import MemoryStorage
from consumers.transport.memory import MemoryLog
from tests.consumers.alerts._cases import Alertmanager, until
from tests.consumers.alerts._followers import Running, follower
from tests.consumers.alerts._stalls import HEALTHY, LOG, STATE, Kernel

FILE = Path(__file__).parents[2] / "deploy" / "alertmanager" / "alertmanager.yml"


@pytest.mark.skipif(shutil.which("amtool") is None, reason="amtool comes with Alertmanager: `make setup-alert`")
def test_alertmanager_takes_the_file():
    done = subprocess.run(["amtool", "check-config", str(FILE)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def alertmanager(tmp_path):
    head = FILE.read_text().partition("receivers:")[0].replace("receiver: pages", "receiver: hook")
    made = Alertmanager(tmp_path, head.replace("group_interval: 30s", "group_interval: 1s"))
    made.start()
    yield made
    made.close()


def labels(name, layer="guest-kernel", kind="soft_lockup", **more):
    alertname = "HostIncident" if layer == "host" else "GuestIncident"
    return {"alertname": alertname, "kind": kind, "layer": layer, "incident_id": name, **more}


def inhibited(alertmanager):
    return {each["labels"]["incident_id"] for each in alertmanager.alerts() if each["status"]["inhibitedBy"]}


def test_guests_are_silent_while_the_kernel_of_their_own_host_stands_still(alertmanager):
    alertmanager.post(labels("host", "host", host="h1"))
    until(alertmanager.pages)
    alertmanager.post(
        labels("its guest", host="h1"),
        labels("of another host", host="h2"),
        labels("of nobody"),
        labels("hung disk of a host", "host", "hung_task", host="h3"),
        labels("guest of that", host="h3"),
    )
    until(lambda: len(alertmanager.alerts()) == 6)
    until(lambda: inhibited(alertmanager) == {"its guest"})


@pytest.fixture
def log():
    return MemoryLog([LOG.topic, STATE.topic])


@pytest.fixture
def storage():
    made = MemoryStorage()
    yield made
    made.close()


@pytest.fixture
def _of_h1(monkeypatch):
    known = {f"guest-{number}": frozenset({Whose(f"vm-{number}", "h1")}) for number in range(1000)}
    monkeypatch.setattr("consumers.alerts.hosts.read", lambda _storage: known)


@pytest.mark.usefixtures("_of_h1")
def test_a_storm_of_a_thousand_guests_of_one_host_is_one_page_with_their_number(log, storage, alertmanager):
    kernels = [Kernel(machine=f"guest-{number}") for number in range(1000)]
    for kernel in kernels:
        log.append(LOG, kernel.stalls())
    with Running(follower(log, storage, alertmanager.url, resend_s=60.0, ends_ahead_s=600.0)):
        until(lambda: alertmanager.pages("firing"), 60)
        (page,) = [body for body in alertmanager.hook.bodies if body["status"] == "firing"][:1]
        assert (page["groupLabels"], page["truncatedAlerts"]) == ({"alertname": "GuestIncident", "host": "h1"}, 0)
        assert len(page["alerts"]) == 1000
        assert {alert["labels"]["vm"] for alert in page["alerts"]} == {f"vm-{number}" for number in range(1000)}
        # All at once are over: once more one page.
        for kernel in kernels:
            log.append(LOG, Kernel(machine=kernel.stream.machine, boot="b2").says(HEALTHY))
        until(lambda: alertmanager.pages("resolved"), 60)
    firing = [ids for status, ids in alertmanager.pages() if status == "firing"]
    assert {len(set(ids)) for ids in firing} == {1000}
    assert len(set().union(*firing)) == 1000


@pytest.mark.usefixtures("_of_h1")
def test_guests_of_a_host_that_stands_still_page_nobody_until_it_goes_on(log, storage, alertmanager):
    host, guest, other = (Kernel(machine=name, layer=layer) for name, layer in (
        ("h1", "host"), ("guest-1", "guest-kernel"), ("elsewhere", "guest-kernel")))  # fmt: skip
    with Running(follower(log, storage, alertmanager.url)):
        log.append(LOG, host.stalls())
        until(lambda: alertmanager.pages("firing"), 30)
        log.append(LOG, guest.stalls())
        log.append(LOG, other.stalls())
        until(lambda: len(alertmanager.alerts()) == 3, 30)
        until(lambda: len(alertmanager.pages("firing")) == 2, 30)
        names = {each["labels"]["incident_id"]: each["labels"]["machine"] for each in alertmanager.alerts()}
        assert {names[key] for key in inhibited(alertmanager)} == {"guest-1"}
        assert {names[key] for _, ids in alertmanager.pages() for key in ids} == {"h1", "elsewhere"}
        # The host has rebooted; the guest of it still stands.
        log.append(LOG, Kernel(machine="h1", boot="b2", layer="host").says(HEALTHY))
        until(lambda: any(names[key] == "guest-1" for _, ids in alertmanager.pages("firing") for key in ids), 30)
