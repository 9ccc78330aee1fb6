"""One file per verb of the `hypocenter` command."""
