from consumers.commands.streams import SHOWN, shown
from schemas.stream import Stream


def test_ids_are_short_and_layer_surface_and_instance_are_one_cell():
    machine, boot = "5f0c2a9be1d84c0c8a7d3b6f91e24d70", "c1f6a0de-3b52-4d0e-9c11-7be2a04f5d38"
    streams = [
        Stream(machine, boot, "host", "kmsg", "restore-1", "printk"),
        Stream("web", "b", "host", "kmsg", "", "printk"),
    ]
    assert SHOWN == ("machine", "boot", "stream")
    assert shown(streams) == [("5f0c2a9b", "c1f6a0de", "host/kmsg/restore-1"), ("web", "b", "host/kmsg")]


def test_a_loss_of_the_log_itself_has_no_stream():
    assert shown([Stream("", "", "", "", "", "")]) == [("", "", "")]
