"""Reports to incidents: one failure each, however many lines, re-reports, detectors and victims told of it."""
