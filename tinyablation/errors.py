"""Exceptions that several modules share."""


class TinyAblationError(Exception):
    """An error the user can act on: the message says what is wrong, where, and what to do."""


class LoadingError(TinyAblationError):
    """A model was found but cannot be used as it is."""


class ModelChanged(LoadingError):
    """A file of a model is no longer what was hashed: nothing measured with it may be stored."""


class Unavailable(LoadingError):
    """This machine cannot provide the model: claims about it are blocked, not refuted."""


class WeightsMissing(Unavailable):
    """The model's files are not on this machine and could not be obtained."""


class PickledWeights(WeightsMissing):
    """The model has pickled weights only, which are never read."""


class TooLarge(Unavailable):
    """The model does not fit into this machine's memory."""


class OutOfMemory(TinyAblationError):
    """The process got no more memory while it was at work: nothing follows about the model."""


class RunError(TinyAblationError):
    """A run directory, its tables or its address is invalid."""
