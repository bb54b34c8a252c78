"""What fills the shards of one run: prompts, donors and positions, handed to the engine.

Also its check: a sample of every run is measured again, each prompt alone, and compared (verify).
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from tinyablation.batteries import AnyBattery, Shard, Side
from tinyablation.corpora import CorpusError
from tinyablation.interventions import Intervention
from tinyablation.protocols import PUBLISHED, ProtocolError
from tinyablation.tables import BASELINE

if TYPE_CHECKING:
    import pandas
    from torch import Tensor

    from tinyablation.corpora import Example
    from tinyablation.measuring import Bench
    from tinyablation.spans import Span
    from tinyablation.tokenisation import Prompt

# The verified sample: every figure is one number at fp32 or float64, so some dozens of them show
# the grain of the arithmetic.
VERIFIED_EXAMPLES = 4
VERIFIED_INTERVENTIONS = 4
VERIFIED_METRICS = ("logit_diff", "target_probability", "kl", "entropy")


class Measurement:
    """Computes the shards of one run; prompts are tokenised when the first shard is asked for."""

    def __init__(
        self,
        bench: "Bench",
        wanted: AnyBattery,
        condition: str,
        chosen: Sequence["Example"],
        directions: Callable[[], Mapping[str, "Tensor"]] | None = None,
    ) -> None:
        self.bench = bench
        self.battery = wanted
        self.examples = list(chosen)
        # Donors and means come from all of the condition's examples: a sample of them may hold no
        # second prompt of some length.
        self.pool = bench.examples(condition)
        self._directions = directions
        place = f"{bench.entry.tokenizer}/{condition}"
        for side in filter(None, (wanted.side, wanted.donor)):
            if any(not getattr(example, side) for example in self.pool):
                raise CorpusError(f"{place}: its examples have no {side} prompts")
        if not self.examples:
            what = "aligned pairs" if wanted.donor else "examples"
            raise CorpusError(f"{place}: it has no {what}, which battery {wanted.name} measures")

    @cached_property
    def has_spans(self) -> bool:
        """Whether some answer is more than one token; then all are measured as spans."""
        from tinyablation.spans import is_multi_token

        return is_multi_token(self.bench.model.tokenizer, self.pool, self.battery.side)

    @cached_property
    def reference(self) -> "Sequence[Prompt | Span]":
        """The prompts of the whole pool, on the measured side."""
        return self._encode(self.battery.side)

    @cached_property
    def prompts(self) -> "Sequence[Prompt | Span]":
        return self._of_examples(self.reference)

    @cached_property
    def others(self) -> "Sequence[Prompt | Span] | None":
        """The lending side of the whole pool, where the battery patches from it."""
        return self._encode(self.battery.donor) if self.battery.donor else None

    @cached_property
    def pairs(self) -> "Sequence[Prompt | Span] | None":
        """The other prompt of each pair, where the battery patches from it."""
        return None if self.others is None else self._of_examples(self.others)

    @cached_property
    def subjects(self) -> list[tuple[int, ...]] | None:
        """Where the two prompts of each pair differ: the subject of a fact, the object judged."""
        if self.pairs is None:
            return None
        return [
            tuple(n for n, (a, b) in enumerate(zip(own.ids, other.ids, strict=True)) if a != b)
            for own, other in zip(self.prompts, self.pairs, strict=True)
        ]

    @cached_property
    def directions(self) -> Mapping[str, "Tensor"] | None:
        return self._directions() if self._directions else None

    def __call__(self, shard: Shard) -> "pandas.DataFrame":
        table = self._measure(shard.interventions, list(range(len(self.prompts))))
        if shard.interventions:
            return table[table["method"] != "none"].reset_index(drop=True)
        return table

    def _measure(
        self, interventions: Sequence[Intervention], rows: Sequence[int]
    ) -> "pandas.DataFrame":
        def chosen(of: Sequence[Any] | None) -> list[Any] | None:
            return None if of is None else [of[row] for row in rows]

        pool = [example.cluster_id for example in self.pool]
        others: Any = self.others
        measure: Callable[..., pandas.DataFrame]
        if self.has_spans:
            from tinyablation.spans import measure_spans

            measure = partial(measure_spans, self.bench.engine)
        else:
            measure = partial(
                self.bench.engine.measure,
                others=others,
                others_clusters=None if others is None else pool,
            )
        return measure(
            chosen(self.prompts),
            interventions,
            reference=self.reference,
            clusters=[self.examples[row].cluster_id for row in rows],
            reference_clusters=pool,
            pairs=chosen(self.pairs),
            subjects=chosen(self.subjects),
            directions=self.directions,
            seed=self.bench.seed,
        )

    def _of_examples(self, every: "Sequence[Prompt | Span]") -> "Sequence[Prompt | Span]":
        """The measured examples' own, out of one for each of the pool."""
        place = {id(example): index for index, example in enumerate(self.pool)}
        return [every[place[id(example)]] for example in self.examples]

    def _encode(self, side: Side) -> "Sequence[Prompt | Span]":
        if not self.has_spans:
            return self.bench.encode(self.pool, side)
        from tinyablation.spans import encode_spans

        if self.bench.protocol == PUBLISHED:
            raise ProtocolError(
                f"{self.bench.entry.tokenizer}: some answers are more than one token, which the "
                "published protocol cannot pad for; use --protocol corrected"
            )
        model = self.bench.model
        return encode_spans(model.tokenizer, self.pool, model.bos_id, side)

    def verify(self, shards: Sequence[Shard]) -> dict[str, Any]:
        """verify.json: a sample of the run against the same, each prompt alone.

        By metric: main (the run's way, mean over the sample), verify (one prompt alone), abs_diff
        (between the two) and largest (between any two figures). noise_floor is the largest
        difference in the change of LD, in logits: by arithmetic it is 0, what differs is the order
        of sums, and an effect that is not larger cannot be told from it.
        """
        import numpy as np

        every = [item for shard in shards for item in shard.interventions if _stands_alone(item)]
        some = every[:: max(1, len(every) // VERIFIED_INTERVENTIONS)]
        step = max(1, len(self.prompts) // VERIFIED_EXAMPLES)
        rows = list(range(0, len(self.prompts), step))[:VERIFIED_EXAMPLES]
        together = self._measure(some, rows)
        alone = [self._measure(some, [row]) for row in rows]
        document: dict[str, Any] = {}

        def figures(table: "pandas.DataFrame", metric: str, n: int) -> "np.ndarray[Any, Any]":
            return table[metric].to_numpy(dtype=float).reshape(len(some) + 1, n)

        for metric in VERIFIED_METRICS:
            main = figures(together, metric, len(rows))
            check = np.concatenate([figures(table, metric, 1) for table in alone], axis=1)
            document[metric] = {
                "main": float(main.mean()),
                "verify": float(check.mean()),
                "abs_diff": float(abs(main.mean() - check.mean())),
                "largest": float(np.abs(main - check).max()),
            }
            if metric == "logit_diff":
                change = (main - main[:1]) - (check - check[:1])
                document["noise_floor"] = float(np.abs(change).max())
        document["examples"] = rows
        document["interventions"] = [BASELINE, *(item.label for item in some)]
        document["verified"] = "each prompt alone, on the same device"
        return document


def _stands_alone(intervention: Intervention) -> bool:
    """Whether it can be measured on one prompt: no donor from among the other examples."""
    return (
        getattr(intervention, "method", "") != "resample"
        and getattr(intervention, "donor", "") != "other"
    )
