"""Counts of exits, as QEMU and debugfs tell them; the files here are written by hand, and one of them refuses."""

import pytest

from producers import kvm_exits

PATHS = {"/machine/unattached/device[0]": 0, "/machine/unattached/device[2]": 1}


@pytest.fixture
def debugfs(tmp_path):
    """A folder with VMs of two processes, and files that are of none."""

    def vm(name, **counts):
        folder = tmp_path / "kvm" / name
        (folder / "vcpu0").mkdir(parents=True)
        for each, count in counts.items():
            (folder / each).write_text(f"{count}\n")

    vm("4099-12", exits=9000, io_exits=700, halt_exits=30, pf_taken=5)
    vm("5000-9", exits=1)
    vm("5000-11", exits=2)
    (tmp_path / "kvm" / "exits").write_text("9003\n")
    (tmp_path / "kvm" / "x-9").mkdir()
    return tmp_path


def test_a_vm_is_found_by_its_process(debugfs):
    found = kvm_exits.Folders(debugfs).of_processes()
    assert {pid: sorted(path.name for path in paths) for pid, paths in found.items()} == {
        4099: ["4099-12"],
        5000: ["5000-11", "5000-9"],
    }


def test_counts_are_those_of_the_kernel_s_names(debugfs):
    found = kvm_exits.Folders(debugfs).of_processes()
    assert kvm_exits.read(found[4099]) == {"exits": 9000, "io_exits": 700, "halt_exits": 30}
    assert kvm_exits.read(found[5000]) == {"exits": 3}


def test_what_cannot_be_read_is_left_out(debugfs):
    folder = debugfs / "kvm" / "4099-12"
    (folder / "io_exits").write_text("many\n")
    (folder / "mmio_exits").mkdir()
    (folder / "exits").unlink()
    (folder / "exits").symlink_to("/etc/hostname")
    assert kvm_exits.read([folder, debugfs / "none"]) == {"halt_exits": 30}


def test_a_machine_without_kvm_or_debugfs_has_none(tmp_path):
    assert kvm_exits.Folders(tmp_path).of_processes() == {}
    assert kvm_exits.read([]) == {}


def test_why_exits_are_not_read_is_told(debugfs, tmp_path):
    assert kvm_exits.told(debugfs) == "exits of KVM are read from debugfs"
    (debugfs / "kvm" / "exits").unlink()
    assert "no KVM, or debugfs is not mounted" in kvm_exits.told(debugfs)
    (debugfs / "kvm" / "exits").mkdir()
    assert kvm_exits.told(debugfs).endswith("kvm/exits: Is a directory")


def test_qemu_s_paths_lead_to_vcpus():
    answer = [
        {"cpu-index": 0, "qom-path": "/machine/unattached/device[0]"},
        {"cpu-index": 1, "qom-path": "/machine/unattached/device[2]"},
    ]
    assert kvm_exits.paths_of(answer) == PATHS
    assert kvm_exits.paths_of([*answer, 3, {"cpu-index": "x", "qom-path": "/y"}, {"cpu-index": 1 << 40}]) == PATHS


# What QEMU 7.2 said of two vCPUs of a VM without a guest, on this project's kind of machine.
def test_an_answer_of_qemu_is_counts_by_vcpu():
    answer = [
        {
            "provider": "kvm",
            "stats": [
                {"name": "halt_exits", "value": 1},
                {"name": "mmio_exits", "value": 0},
                {"name": "exits", "value": 40},
                {"name": "guest_mode", "value": False},
                {"name": "halt_wait_hist", "value": [2, 0, 0]},
            ],
            "qom-path": "/machine/unattached/device[2]",
        },
        {
            "provider": "kvm",
            "stats": [{"name": "mmio_exits", "value": 376}, {"name": "exits", "value": 10336}],
            "qom-path": "/machine/unattached/device[0]",
        },
    ]
    assert kvm_exits.counts_of(answer, PATHS) == {
        1: {"exits": 40, "mmio_exits": 0, "halt_exits": 1},
        0: {"exits": 10336, "mmio_exits": 376},
    }


@pytest.mark.parametrize(
    "answer",
    [
        None,
        {},
        [],
        [3, None],
        [{"qom-path": "/elsewhere", "stats": [{"name": "exits", "value": 1}]}],
        [{"qom-path": ["/x"], "stats": []}],
        [{"qom-path": "/machine/unattached/device[0]", "stats": 3}],
        [{"qom-path": "/machine/unattached/device[0]", "stats": [{"name": ["exits"], "value": 1}, 4]}],
        [{"qom-path": "/machine/unattached/device[0]", "stats": [{"name": "exits", "value": True}]}],
        [{"qom-path": "/machine/unattached/device[0]", "stats": [{"name": "exits", "value": -1}]}],
        [{"qom-path": "/machine/unattached/device[0]", "stats": [{"name": "exits", "value": 1 << 64}]}],
    ],
)
def test_answers_of_any_form_are_no_counts(answer):
    assert kvm_exits.counts_of(answer, PATHS) == {}
    assert kvm_exits.paths_of(answer) == {}
