"""Readings of a model's loss on running text. They use no corpus of examples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tinyablation.engine.document import Computed
from tinyablation.files.hashes import HASH_DIGITS

if TYPE_CHECKING:
    from tinyablation.corpora.passages import Passage
    from tinyablation.engine.prompt_checks import Ids
    from tinyablation.measurement.interface import Measures

REMOVAL_VERSION = 1  # part of the address: incremented whenever a loss could change
# With SmolLM2-135M 11 seconds of one core a passage, 6 minutes in all (3 of two cores); the changes
# of its layers, .07 to 7.3 nats, then have 95 % intervals of +-.02 to .26.
N_PASSAGES = 32
POSITIONS = 128  # tokens of a passage that are read, BOS among them


@dataclass(frozen=True)
class LayerLosses:
    """The loss on the first passages of corpora/text, of the whole model and without each layer.

    positions: tokens of each passage that are read, BOS counted; fewer if the model's context or
    sliding window is shorter. Tensors: the fields of layer_removal.Losses. In the document also
    "noise", in nats: how far a change of the loss moves if a passage is read alone, and, on another
    device or dtype than the CPU's float32, if it is read there.
    """

    n_passages: int = N_PASSAGES
    positions: int = POSITIONS

    def name(self, bench: Measures) -> str:
        from tinyablation.corpora.passages import content_hash

        texts = content_hash(self._passages(bench))[:HASH_DIGITS]
        return f"layer-losses-{self.positions}-{texts}-v{REMOVAL_VERSION}"

    def compute(self, bench: Measures) -> Computed:
        import numpy as np

        from tinyablation.engine.layer_removal import removal_losses
        from tinyablation.measurement.noise import spread

        passages = self._passages(bench)
        texts = [self._read(bench, passage) for passage in passages]
        found = removal_losses(bench.engine, texts)
        engines = [bench.engine, *([] if bench.is_trusted else [bench.reference.engine])]
        alone = [removal_losses(engine, texts[:1]) for engine in engines]
        ways = [np.concatenate([way.whole[:1], way.removed[0]]) for way in (found, *alone)]
        document = {
            "model": bench.entry.id,
            "passages": [passage.id for passage in passages],
            "noise": spread([way[:, None] for way in ways], of_changes=True),
        }
        return Computed(document, found._asdict())

    def _read(self, bench: Measures, passage: Passage) -> Ids:
        """The tokens of a passage that are read; TokenisationError if some of it is unknown."""
        from tinyablation.corpora.tokenisation import TokenisationError, encode

        model, facts = bench.model, bench.facts
        ids = encode(model.tokenizer, passage.text)
        if model.tokenizer.unk_token_id in ids:
            raise TokenisationError(
                f"model {bench.entry.id!r}: its tokenizer does not know all words of the passage "
                f"{passage.id!r}, so that a loss on it says nothing; take another model"
            )
        before = () if model.bos_id is None else (model.bos_id,)
        most = min(self.positions, facts.context, facts.sliding_window or self.positions)
        return (*before, *ids)[:most]

    def _passages(self, bench: Measures) -> tuple[Passage, ...]:
        from tinyablation.corpora.passages import load_passages

        return load_passages(bench.setup.corpora, self.n_passages)
