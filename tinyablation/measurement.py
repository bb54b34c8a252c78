"""What fills the shards of one run: prompts, donors and positions, handed to the engine.

Also its check: a sample of every run is measured again, in other batches and each prompt alone, and
compared (verify); what was measured on an accelerator or in less than float32 is measured again on
the CPU in float32, and a few changes are measured without the engine (agreement.py).
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from tinyablation.batteries import AnyBattery, Shard, Side
from tinyablation.corpora import CorpusError
from tinyablation.errors import TooLarge, Unavailable
from tinyablation.interventions import Intervention
from tinyablation.noise import spread
from tinyablation.protocols import PUBLISHED, ProtocolError
from tinyablation.runs import NotVerified
from tinyablation.tables import BASELINE

if TYPE_CHECKING:
    import numpy as np
    import pandas
    from numpy.typing import NDArray
    from torch import Tensor

    from tinyablation.backends import Case
    from tinyablation.corpora import Example
    from tinyablation.examples import Ids
    from tinyablation.measuring import Bench
    from tinyablation.spans import Span
    from tinyablation.tokenisation import Prompt

# The verified sample. In float32 on the CPU some dozens of figures show the grain of the sums; a
# device and dtype that are to be trusted by it get four times as many.
GRAIN_SAMPLE = (4, 4)  # examples, interventions
TRUST_SAMPLE = (8, 8)
# Examples of one length measured together: eight times the rows of a prompt alone, in halves too,
# at a fourth of what a prompt alone of each length costs (passes over few rows take alike).
BATCH = 16
VERIFIED_METRICS = ("logit_diff", "target_probability", "kl", "entropy")
# How far a figure may lie from the same on the CPU in float32, by dtype: as a share of the largest
# of the sample, and of 1 at least. The largest seen in LD, on the CPU (four embedded families, four
# conditions, batteries zero and methods; LD up to 12 logits): 6e-6 logits in float32, .012 in
# float16, .093 in bfloat16, that is 1e-6, 2e-3 and 2e-2 of the largest; accelerators sum in other
# orders, and deeper models round more often, hence the margin. A device that inverts logits is off
# by 2 of the largest.
TOLERANCES = {"float32": 1e-3, "float16": 5e-2, "bfloat16": 2e-1}
# What is trusted to verify the rest: the arithmetic that the engine is proved exact in.
TRUSTED_DEVICE, TRUSTED_DTYPE = "cpu", "float32"


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
        self.condition = condition
        self.examples = list(chosen)
        # Donors and means come from all of the condition's examples: a sample of them may hold no
        # second prompt of some length.
        among = wanted.sample.among
        # Nothing is borrowed for the unhooked model, and a crossed corpus takes a second to encode.
        self.pool = self.examples if among == "all" else bench.pool(condition, among)
        self._directions = directions
        corpus, _ = bench.corpus(condition)
        place = f"{corpus.tokenizer}/{condition}"
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
        """The rows of a shard. Unavailable, before anything is measured, where the CPU cannot hold
        the model in float32, so that the run could not be verified in the end."""
        if not self.bench.is_trusted:
            self._insist_on_reference()
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
                f"{self.bench.entry.id}: some answers are more than one token, which the "
                "published protocol cannot pad for; use --protocol corrected"
            )
        model = self.bench.model
        return encode_spans(model.tokenizer, self.pool, model.bos_id, side)

    def verify(self, shards: Sequence[Shard], table: "pandas.DataFrame") -> dict[str, Any]:
        """verify.json: a sample of the run's table against the same measured again.

        Each prompt of the sample is measured alone: on the same device, and, where that is not the
        CPU in float32, on that, too, with the same engine, interventions, donors and directions
        (means over prompts are made there, too). The sample: examples of all lengths, the shortest
        and the longest among them, and interventions at equal distances in the battery's order,
        which is by layer, the first and the last among them. Beside it a batch, for the engine
        computes prompts of one length together: examples of the commonest length, under the same
        interventions, measured twice, and half of them once.

        By metric: main (the run's, mean over the sample), verify (of each prompt alone, on the CPU
        in float32), abs_diff (between the two), largest (between any two figures) and noise, the
        largest of: repeat (between the same batch twice), shape (between the run's batches and the
        batch, half of it, or a prompt alone) and reference (between the run and the CPU in float32;
        null where it is that itself). These three are between changes against the unhooked
        model; between figures where nothing but that was measured. noise_floor is the noise of LD,
        in logits: by arithmetic it is 0, and what differs is rounding, so that an effect which is
        not larger cannot be told from it. It is the largest of some dozens of single figures:
        neither a bound on the worst of all, nor the error of a mean over many examples, which is
        smaller as far as rounding is independent between them.

        backends, backends_not_made: see agreement.agreement.

        Raises NotVerified where a figure is further off than its tolerance, Unavailable where the
        CPU cannot hold the model in float32.
        """
        import numpy as np

        from tinyablation.agreement import agreement

        bench, trusted = self.bench, self.bench.is_trusted
        n_examples, n_interventions = GRAIN_SAMPLE if trusted else TRUST_SAMPLE
        every = [item for shard in shards for item in shard.interventions]
        alone = [item for item in every if _stands_alone(item)]
        some = [alone[index] for index in _spread(len(alone), n_interventions)]
        by_length = sorted(range(len(self.prompts)), key=lambda row: len(self.prompts[row].ids))
        rows = sorted(by_length[index] for index in _spread(len(by_length), n_examples))
        labels = [BASELINE, *(item.label for item in some)]
        batch = self._of_one_length(BATCH)
        half = batch[: max(1, len(batch) // 2)]
        own = table[table["intervention"].isin(labels)].set_index(["intervention", "example"])
        once, twice = (self._sampled(some, [batch]) for _ in range(2))
        halved = self._sampled(some, [half])
        singly = self._sampled(some, [[row] for row in rows])
        again = self if trusted else self._on_the_reference()
        checked = singly if trusted else again._sampled(some, [[row] for row in rows])
        document: dict[str, Any] = {}
        for metric in VERIFIED_METRICS:
            # [intervention, example], the unhooked model first.
            wide = own[metric].unstack("example").loc[labels].astype(float)
            main, check = wide[rows].to_numpy(), checked[metric]
            shapes = (
                (main, singly[metric]),
                (wide[batch].to_numpy(), once[metric]),
                (wide[half].to_numpy(), halved[metric], once[metric][:, : len(half)]),
            )
            changes = bool(some)
            noises = {
                "repeat": spread((once[metric], twice[metric]), of_changes=changes),
                "shape": max(spread(ways, of_changes=changes) for ways in shapes),
                "reference": None if trusted else spread((main, check), of_changes=changes),
            }
            document[metric] = {
                "main": float(main.mean()),
                "verify": float(check.mean()),
                "abs_diff": float(abs(main.mean() - check.mean())),
                "largest": float(np.abs(main - check).max()),
                "noise": max(value for value in noises.values() if value is not None),
                **noises,
            }
            if not trusted:
                self._insist(metric, labels, rows, main, check)
        document["noise_floor"] = document["logit_diff"]["noise"]
        document["examples"] = rows
        document["batch"] = batch
        document["interventions"] = labels
        document["measured"] = {"device": bench.device, "dtype": bench.dtype}
        document["reference"] = {"device": again.bench.device, "dtype": again.bench.dtype}
        if trusted:
            document["verified"] = "each prompt alone, on the same device"
        else:
            document["tolerance"] = TOLERANCES[bench.dtype]
            document["verified"] = (
                f"measured on {bench.device} in {bench.dtype}; each prompt alone, on the "
                f"{again.bench.device} in {again.bench.dtype}"
            )
        return document | agreement(self, every, table)

    def _of_one_length(self, most: int) -> list[int]:
        """At most so many examples of the commonest token length, at equal distances."""
        by_length: dict[int, list[int]] = {}
        for row, prompt in enumerate(self.prompts):
            by_length.setdefault(len(prompt.ids), []).append(row)
        same = max(by_length.values(), key=len)
        return [same[index] for index in _spread(len(same), most)]

    def _sampled(
        self, interventions: Sequence[Intervention], batches: Sequence[Sequence[int]]
    ) -> "dict[str, NDArray[np.float64]]":
        """By verified metric, [interventions + 1, examples]: these examples, batch by batch."""
        import numpy as np

        tables = [self._measure(interventions, batch) for batch in batches]
        return {
            metric: np.concatenate(
                [
                    table[metric].to_numpy(dtype=float).reshape(len(interventions) + 1, -1)
                    for table in tables
                ],
                axis=1,
            )
            for metric in VERIFIED_METRICS
        }

    def comparable_rows(self) -> list[int]:
        """The examples whose answers differ in their first token, which is what LD is read from."""
        if not self.has_spans:
            return list(range(len(self.prompts)))
        spans: Any = self.prompts
        return [row for row, span in enumerate(spans) if span.target[0] != span.foil[0]]

    def cases(self, rows: Sequence[int], borrowing: Collection[str]) -> "list[Case]":
        """These examples, each with the ids of its donors; drawn ones are those of the engine.

        borrowing: the interventions' Loan.donor.
        """
        from tinyablation.backends import Case
        from tinyablation.donors import draw_donors

        pool = [example.cluster_id for example in self.pool]

        def drawn(row: int, lenders: "Sequence[Prompt | Span] | None", **options: Any) -> "Ids":
            ids, cluster = self.prompts[row].ids, self.examples[row].cluster_id
            every = [lender.ids for lender in lenders or ()]
            return draw_donors([ids], [cluster], every, pool, self.bench.seed, **options)[0]

        found = []
        for row in rows:
            prompt: Any = self.prompts[row]
            answers = (prompt.target, prompt.foil)
            target, foil = (each[0] for each in answers) if self.has_spans else answers
            lenders: dict[str, Ids] = {"self": prompt.ids}
            if self.pairs is not None:
                lenders["pair"] = self.pairs[row].ids
            if "resample" in borrowing:
                lenders["resample"] = drawn(row, self.reference)
            if "other" in borrowing:
                lenders["other"] = drawn(row, self.others, purpose="other", longer=False)
            subject = () if self.subjects is None else self.subjects[row]
            found.append(Case(prompt.ids, target, foil, lenders, subject))
        return found

    def _insist_on_reference(self) -> "Bench":
        """The bench that verifies, its model loaded."""
        reference = self.bench.reference
        try:
            reference.model  # noqa: B018 - loads it
        except TooLarge as refusal:
            raise Unavailable(
                f"model {self.bench.entry.id!r}: a sample of what {self.bench.device} computes in "
                f"{self.bench.dtype} must be measured again on the CPU in float32, and that does "
                f"not fit: {refusal}"
            ) from refusal
        return reference

    def _on_the_reference(self) -> "Measurement":
        """This measurement on the CPU in float32, with the same directions."""
        return Measurement(
            self._insist_on_reference(),
            self.battery,
            self.condition,
            self.examples,
            None if self._directions is None else lambda: self.directions or {},
        )

    def _insist(
        self,
        metric: str,
        labels: Sequence[str],
        rows: Sequence[int],
        main: "np.ndarray[Any, Any]",
        check: "np.ndarray[Any, Any]",
    ) -> None:
        """NotVerified unless main and check [intervention, example] agree within the tolerance."""
        import numpy as np

        bench = self.bench
        allowed = TOLERANCES[bench.dtype] * max(1.0, float(np.abs(check).max()))
        off = np.abs(main - check)
        if off.max() <= allowed:
            return
        row, column = np.unravel_index(off.argmax(), off.shape)
        raise NotVerified(
            f"model {bench.entry.id!r}, {self.condition}, battery {self.battery.name}: {metric} of "
            f"example {rows[column]} under {labels[row]} is {main[row, column]:.4g} on "
            f"{bench.device} in {bench.dtype}, and {check[row, column]:.4g} on the CPU in float32; "
            f"at most {allowed:.2g} may lie between them. The run is not kept. This device does "
            "not compute what it should: update its driver and torch, or measure with --device cpu"
            + ("" if bench.dtype == TRUSTED_DTYPE else " or --dtype float32")
        )


def _stands_alone(intervention: Intervention) -> bool:
    """Whether it can be measured on one prompt: no donor from among the other examples."""
    return (
        getattr(intervention, "method", "") != "resample"
        and getattr(intervention, "donor", "") != "other"
    )


def _spread(n: int, most: int) -> list[int]:
    """At most so many of the first n numbers, at equal distances, the first and last among them."""
    import numpy as np

    return sorted({int(index) for index in np.linspace(0, n - 1, most).round()}) if n else []
