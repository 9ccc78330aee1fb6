"""Which of the hardware's lines can stop a CPU; the wording is that of kernels 5.x to 6.x."""

import pytest

from consumers.verdict.hardware import serious


@pytest.mark.parametrize(
    "text",
    [
        "mce: [Hardware Error]: CPU 1: Machine Check: 0 Bank 4: b200000000070f0f",
        "mce: [Hardware Error]: CPU 1: Machine Check Exception: 5 Bank 0: be00000000800400",
        "EDAC skx MC0: CPU 1: Machine Check Event: 0x0 Bank 7: 0xbd80000000100091",
        "CPU#1: Machine Check Exception:  0x     106 (type 0x       9).",
        "[Hardware Error]: Uncorrected, software restartable error.",
        "[Hardware Error]: CPU:1 (17:31:0) MC17_STATUS[Over|UE|MiscV|AddrV|-|-|SyndV|UECC|-|-|-]: 0xfc2040000000011b",
        "EDAC MC0: 1 UE memory read error on CPU_SrcID#0_Ha#0_Chan#0_DIMM#0 (channel:0 slot:0)",
        "{1}[Hardware Error]: event severity: fatal",
        "pcieport 0000:00:1c.0: AER: Uncorrected (Fatal) error received: 0000:00:1c.0",
        "pcieport 0000:00:1c.0: AER: Uncorrectable (Fatal) error message received from 0000:00:1c.0",
    ],
)
def test_what_was_not_corrected_is_serious(text):
    assert serious(text)


@pytest.mark.parametrize(
    "text",
    [
        "mce: CPU1: Core temperature/speed normal",
        "mce: CPU1: Package temperature/speed normal",
        "mce: CPU1: Core temperature above threshold, cpu clock throttled (total events = 4)",
        "mce: CPU1: Thermal monitoring enabled (TM1)",
        "mce: CPU supports 32 MCE banks",
        "mce: [Hardware Error]: Machine check events logged",
        "mce: [Hardware Error]: CPU 1: Machine Check: 0 Bank 7: 8c00004000010091",
        "EDAC sbridge MC0: CPU 1: Machine Check Event: 0 Bank 7: 8c00004000010091",
        "EDAC DEBUG: ie31200_check: device on CPU#1 ok",
        "EDAC MC0: 1 CE memory read error on CPU_SrcID#0_Ha#0_Chan#0_DIMM#0 (channel:0 slot:0)",
        "EDAC MC: Ver: 3.0.0",
        "[Hardware Error]: Corrected error, no action required.",
        "[Hardware Error]: CPU:1 (17:31:0) MC17_STATUS[Over|CE|MiscV|AddrV|-|-|SyndV|CECC|-|-|-]: 0xdc2040000000011b",
        "{1}[Hardware Error]: event severity: corrected",
        "pcieport 0000:00:1c.0: AER: Corrected error received: 0000:00:1c.0",
        "[Firmware Bug]: cpu 1, try to use APIC520 (LVT offset 2) for vector 0x10400, but the register is in use",
    ],
)
def test_what_was_corrected_and_what_is_no_error_is_not(text):
    assert not serious(text)
