"""Lines of a kernel log to reports of lockups, stalls and their relatives; no file, socket or clock inside."""
