"""What every layer emitted between two times, as one list: in order as far as clocks compare, with what is missing."""
