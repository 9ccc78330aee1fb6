"""Which VM a machine is and on which host, out of what hosts and relays have said."""

import pytest

from consumers.alerts.hosts import Hosts, common, read
from consumers.alerts.payload import Whose
from consumers.lake.layout import open_lake
from schemas.errors import StorageError
from tests.consumers import _sample
from tests.consumers.alerts._cases import until

UUID = "5f0c2a9b-e1d8-4c0c-8a7d-3b6f91e24d70"
WEB = Whose("web-7", "e1c4b7d05a934f2f9d6c0f83a7b21e65")


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    return _sample.build(tmp_path_factory.mktemp("hosts") / "lake", trace=True)


def test_a_lake_without_hosts_knows_nobody(tmp_path):
    assert read(open_lake(tmp_path / "lake", create=True)) == {}


def test_a_machine_is_the_vm_that_its_host_names(lake):
    assert common(read(lake)[UUID]) == WEB


def test_of_one_that_several_hosts_name_none_is_guessed_at(lake):
    # In the sample two hosts have a VM of this machine id.
    assert common(read(lake)[UUID.replace("-", "")]) == Whose()


def test_a_look_never_waits_and_knows_when_it_was_read(lake):
    hosts = Hosts(lake)
    assert hosts(UUID) == Whose()
    hosts.step(0)
    hosts.wait(10)
    assert hosts(UUID) == WEB
    assert hosts("nobody") == Whose()
    hosts.close()


def test_it_is_read_anew_each_minute_and_a_lake_that_cannot_be_read_takes_nothing_away(lake, monkeypatch, caplog):
    hosts = Hosts(lake)
    hosts.step(0)
    hosts.wait(10)

    def fails(_):
        raise StorageError("disk")

    monkeypatch.setattr("consumers.alerts.hosts.read", fails)
    hosts.step(59 * 10**9)
    assert hosts._reading is None
    hosts.step(61 * 10**9)
    until(hosts._reading.done)
    hosts.step(62 * 10**9)
    assert "disk" in caplog.text
    assert hosts(UUID) == WEB
    hosts.close()
