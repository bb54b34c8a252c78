"""The one error of its own that this package raises."""

from tinyablation.errors import TinyAblationError


class ApiError(TinyAblationError):
    """A call asks for something that cannot be had; the message says what to give."""
