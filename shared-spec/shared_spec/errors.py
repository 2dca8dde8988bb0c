"""Errors whose text is meant for the person at the keyboard."""


class UserError(Exception):
    """Bad input or a machine that cannot do what was asked: one sentence that says what and what to do."""
