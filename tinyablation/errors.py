"""The refusals that the instruments raise on purpose, as far as several modules share them."""


class TinyAblationError(Exception):
    """Something was wrong that the reader can act on: the message says what, where, what to do."""


class LoadingError(TinyAblationError):
    """A model is there, but not usable as it stands."""


class Unavailable(LoadingError):
    """This machine cannot provide the model: what was asked of it is blocked, not refuted."""


class WeightsMissing(Unavailable):
    """The model's files are not on this machine, and could not be had."""


class PickledWeights(WeightsMissing):
    """There are weights, but pickled ones, which are never read."""


class TooLarge(Unavailable):
    """The model does not fit into this machine's memory."""


class RunError(TinyAblationError):
    """A run directory, its tables or its address is not what it should be."""
