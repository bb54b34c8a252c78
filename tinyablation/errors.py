"""The root of every refusal the instruments raise on purpose."""


class TinyAblationError(Exception):
    """Something was wrong that the reader can act on: the message says what, where, what to do."""
