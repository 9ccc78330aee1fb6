"""A timeline as one page of HTML that needs nothing else."""

from typing import TextIO

from consumers.timeline.build import Timeline


def write(found: Timeline, out: TextIO) -> None:
    """Write the page."""
    out.write(found.scope.title)
