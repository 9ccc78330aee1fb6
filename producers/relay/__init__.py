"""Guests without a network: `ship`, `port` and `pings` run there, the others on the host.

Nothing is imported here: a guest loads no more than it runs.
"""
