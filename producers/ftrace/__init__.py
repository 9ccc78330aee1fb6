"""Trace rings: `source` opens and reads them, the other modules are its parts. Nothing is imported here."""
