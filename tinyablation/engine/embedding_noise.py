"""Noise for the embeddings of a prompt's subject: its draw, and the spread it is a multiple of."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float64

from tinyablation.engine.architecture import Architecture
from tinyablation.engine.memory import Room
from tinyablation.engine.offload import exact
from tinyablation.engine.prompt_checks import EngineError, Ids
from tinyablation.interventions.restoration import AddNoise
from tinyablation.models.loading import LoadedModel
from tinyablation.statistics.intervals import generator

EMBEDDED_NUMBERS = 2**22  # of embeddings read at once: 32 MB in float64


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


def embedding_spread(
    loaded: LoadedModel, arch: Architecture, room: Room, reference: Sequence[Ids]
) -> float:
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

    def moments(tokens: Sequence[int]) -> Float64[np.ndarray, " three"]:
        rows = exact(arch.embedding(torch.tensor(tokens, device=loaded.device)))
        weights = torch.tensor([counts[token] for token in tokens], dtype=rows.dtype)
        weights = weights.to(rows.device)[:, None].expand_as(rows)
        return np.array([float((weights * rows**power).sum()) for power in range(3)])

    costs = [loaded.facts.d_model] * len(counts)
    parts = room.parts(list(counts), costs, EMBEDDED_NUMBERS, "embeddings of tokens", moments)
    n, total, squares = np.sum([found for _, found in parts], axis=0)
    return float((squares / n - (total / n) ** 2) ** 0.5)
