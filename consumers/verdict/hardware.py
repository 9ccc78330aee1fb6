"""Which lines of a kernel's log tell of an error that can stop a CPU, out of all that hardware has to say.

A corrected error, a temperature and what a driver says of itself cost a CPU microseconds, and no line of them is here.
Sources: arch/x86/kernel/cpu/mce/core.c (print_mce), drivers/edac/ (mce_amd.c, edac_mc.c, sb_edac.c, skx_common.c),
drivers/firmware/efi/cper.c, drivers/pci/pcie/aer.c.
"""

import re
from typing import Final

# `Machine Check: 0 Bank 4: b200000000070f0f`: of each bank its status, and whether that was corrected is a bit of it.
_BANK: Final = re.compile(r"Machine Check[ \w]*: +(?:0x)?[0-9A-Fa-f]+ Bank \d+: +(?:0x)?([0-9A-Fa-f]{1,16})\b")
# MCI_STATUS_UC, arch/x86/include/asm/mce.h.
_UNCORRECTED: Final = 1 << 61
_SERIOUS: Final = re.compile(
    r"Machine Check Exception|Fatal machine check|\[Hardware Error\]: Machine check: |"
    r"\[Hardware Error\]: (?:Uncorrected|System Fatal error)|_STATUS\[[^\]]*\bUE\b|EDAC \S.*: \d+ UE |"
    r"severity: (?:recoverable|fatal)|AER: (?:Multiple )?Uncorrect(?:ed|able)"
)


def serious(text: str) -> bool:
    """Return whether a line tells of an error that the hardware did not correct."""
    bank = _BANK.search(text)
    if bank is not None:
        return bool(int(bank[1], 16) & _UNCORRECTED)
    return _SERIOUS.search(text) is not None
