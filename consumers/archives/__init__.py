"""What was saved before: one file for each kind of archive, and what makes frames of any a commit chain in a lake."""
