"""The lake's rows in the formats of other programs."""
