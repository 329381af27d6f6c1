"""Errors that are shown to the user without a traceback."""


class ClusterError(Exception):
    """A user error or a missing prerequisite; the message says how to fix it."""
