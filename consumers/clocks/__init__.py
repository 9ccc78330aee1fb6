"""Which time of one clock is which of another, and how exactly: sans-IO, over readings of clocks."""
