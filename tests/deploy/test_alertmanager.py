"""The route and the inhibition that are shipped, as Alertmanager itself reads them."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.consumers.alerts._cases import Alertmanager, until

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


def test_all_guests_of_a_host_are_one_group(alertmanager):
    alertmanager.post(*(labels(f"guest {number}", host="h1") for number in range(100)))
    until(alertmanager.pages)
    assert [len(told) for _, told, *_ in alertmanager.pages()] == [100]
