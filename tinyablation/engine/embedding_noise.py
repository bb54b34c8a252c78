"""Noise for the embeddings of a prompt's subject: its draw, and the spread it is a multiple of."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float64

from tinyablation.engine.architecture import Architecture
from tinyablation.engine.offload import exact
from tinyablation.engine.prompt_checks import EngineError, Ids
from tinyablation.interventions.restoration import AddNoise
from tinyablation.models.loading import LoadedModel
from tinyablation.statistics.intervals import generator


class EmbeddingNoise(NamedTuple):
    """The noise of one measurement. sigma: see embedding_spread; seed: of its draws."""

    sigma: float
    seed: int

    def __call__(
        self, ids: Ids, subject: tuple[int, ...], noise: AddNoise, d_model: int
    ) -> Float64[np.ndarray, "subject_tokens d_model"]:
        """What is added to the embeddings of the subject's tokens, in the order of positions.

        It depends on (seed, draw, the prompt's ids and subject), and on no other prompt measured.
        """
        purpose = f"embedding noise {noise.draw} of {list(ids)} at {list(subject)}"
        drawn = generator(self.seed, purpose).standard_normal((len(subject), d_model))
        return drawn * (noise.scale * self.sigma)


def embedding_spread(loaded: LoadedModel, arch: Architecture, reference: Sequence[Ids]) -> float:
    """The standard deviation of all components of the embeddings of these prompts' tokens.

    Every occurrence of a token counts, BOS does not. Meng et al. take their subjects' tokens;
    the reference prompts hold the subjects of all examples, among other words.
    """
    counts = Counter(
        token
        for ids in reference
        for place, token in enumerate(ids)
        if place or token != loaded.bos_id
    )
    if not counts:
        raise EngineError("the reference prompts contain no token but BOS; there is no noise")
    tokens = torch.tensor(list(counts), device=loaded.device)
    rows = exact(arch.embedding(tokens))
    weights = torch.tensor(list(counts.values()), dtype=torch.float64, device=rows.device)
    weights /= weights.sum() * rows.shape[1]
    mean = (weights[:, None] * rows).sum()
    return float((weights[:, None] * (rows - mean) ** 2).sum().sqrt())
