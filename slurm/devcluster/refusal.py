"""What the cluster can't do, told to its user without a traceback."""


class Refused(Exception):
    """A mistake or a missing piece that the user can mend; its text says how."""
