"""Computes the shards of one run: prompts, donors and positions for the engine."""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from tinyablation.corpora.examples import CorpusError
from tinyablation.errors import TooLarge, Unavailable
from tinyablation.interventions.batteries import AnyBattery, Shard, Side
from tinyablation.interventions.interventions import Intervention
from tinyablation.measurement.held_model import HeldModel
from tinyablation.measurement.protocols import PUBLISHED, ProtocolError, encode

if TYPE_CHECKING:
    import pandas
    from torch import Tensor

    from tinyablation.corpora.answers import Span
    from tinyablation.corpora.examples import Example
    from tinyablation.corpora.tokenisation import Prompt
    from tinyablation.engine.hook_backends import Case
    from tinyablation.engine.prompt_checks import Ids


class Measurement:
    """Computes the shards of one run; prompts are tokenised when the first shard is requested."""

    def __init__(
        self,
        held: HeldModel,
        wanted: AnyBattery,
        condition: str,
        chosen: Sequence["Example"],
        pool: Sequence["Example"],
        *,
        run: str,
        place: str,
        seed: int,
        protocol: str,
        directions: Callable[[], Mapping[str, "Tensor"]] | None = None,
    ) -> None:
        """chosen: the examples that are measured; pool: those that means and donors come from (a
        sample may have no second prompt of some length); run: the run's name; place: the corpus's
        name in messages.
        """
        self.held = held
        self.battery = wanted
        self.condition = condition
        self.examples = list(chosen)
        self.pool = list(pool)
        self.run = run
        self.place = place
        self.seed = seed
        self.protocol = protocol
        self._directions = directions
        for side in filter(None, (wanted.side, wanted.donor)):
            if any(not getattr(example, side) for example in self.pool):
                raise CorpusError(f"{place}: its examples have no {side} prompts")
        if not self.examples:
            what = "aligned pairs" if wanted.donor else "examples"
            raise CorpusError(f"{place}: it has no {what}, which battery {wanted.name} measures")

    @cached_property
    def has_spans(self) -> bool:
        """Whether some answer has more than one token; then all are measured as spans."""
        from tinyablation.corpora.answers import is_multi_token

        return is_multi_token(self.held.encoder, self.pool, self.battery.side)

    @cached_property
    def reference(self) -> "Sequence[Prompt | Span]":
        """The prompts of the whole pool, on the measured side."""
        return self._encode(self.battery.side)

    @cached_property
    def prompts(self) -> "Sequence[Prompt | Span]":
        return self._of_examples(self.reference)

    @cached_property
    def others(self) -> "Sequence[Prompt | Span] | None":
        """The donor side of the whole pool; None if the battery does not patch from it."""
        return self._encode(self.battery.donor) if self.battery.donor else None

    @cached_property
    def pairs(self) -> "Sequence[Prompt | Span] | None":
        """The other prompt of each pair; None if the battery does not patch from it."""
        return None if self.others is None else self._of_examples(self.others)

    @cached_property
    def subjects(self) -> list[tuple[int, ...]] | None:
        """The positions where the prompts of each pair differ: the fact's subject, the object."""
        if self.pairs is None:
            return None
        return [
            tuple(n for n, (a, b) in enumerate(zip(own.ids, other.ids, strict=True)) if a != b)
            for own, other in zip(self.prompts, self.pairs, strict=True)
        ]

    @cached_property
    def templates(self) -> "list[tuple[Ids, ...]]":
        """By example, what template_mean averages over: the pool's prompts of its wording, as long.

        They are the donor side's prompts where the battery has one, else those of the measured one.
        """
        every = self.reference if self.others is None else self.others
        groups: dict[tuple[str, int], list[Ids]] = {}
        for example, prompt in zip(self.pool, every, strict=True):
            groups.setdefault((example.template_id, len(prompt.ids)), []).append(prompt.ids)
        return [
            tuple(groups.get((example.template_id, len(prompt.ids)), ()))
            for example, prompt in zip(self.examples, self.prompts, strict=True)
        ]

    @cached_property
    def directions(self) -> Mapping[str, "Tensor"] | None:
        return self._directions() if self._directions else None

    def __call__(self, shard: Shard) -> "pandas.DataFrame":
        """The rows of a shard.

        Raises Unavailable, before anything is measured, if the CPU cannot hold the model in
        float32, because the run could then not be verified; ModelChanged if the model's files
        changed before the shard was done.
        """
        if not self.held.is_trusted:
            self.require_reference()
        table = self.measure(shard.interventions, list(range(len(self.prompts))))
        self.held.require_unchanged()
        if shard.interventions:
            return table[table["method"] != "none"].reset_index(drop=True)
        return table

    def measure(
        self, interventions: Sequence[Intervention], rows: Sequence[int]
    ) -> "pandas.DataFrame":
        def chosen(of: Sequence[Any] | None) -> list[Any] | None:
            return None if of is None else [of[row] for row in rows]

        pool = [example.cluster_id for example in self.pool]
        others: Any = self.others
        averaged = any(each.source.donor == "template_mean" for each in interventions)
        measure: Callable[..., pandas.DataFrame]
        if self.has_spans:
            from tinyablation.engine.spans import measure_spans

            measure = partial(measure_spans, self.held.engine)
        else:
            measure = partial(
                self.held.engine.measure,
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
            templates=chosen(self.templates) if averaged else None,
            seed=self.seed,
        )

    def _of_examples(self, every: "Sequence[Prompt | Span]") -> "Sequence[Prompt | Span]":
        """The entries of the measured examples, selected from those of the pool."""
        place = {id(example): index for index, example in enumerate(self.pool)}
        return [every[place[id(example)]] for example in self.examples]

    def _encode(self, side: Side) -> "Sequence[Prompt | Span]":
        held = self.held
        if not self.has_spans:
            return encode(held.model, held.encoder, self.pool, side, self.protocol)
        from tinyablation.corpora.answers import encode_spans

        if self.protocol == PUBLISHED:
            raise ProtocolError(
                f"{held.entry.id}: some answers are more than one token, which the "
                "published protocol cannot pad for; use --protocol corrected"
            )
        return encode_spans(held.encoder, self.pool, held.model.bos_id, side)

    def comparable_rows(self) -> list[int]:
        """The examples whose answers differ in their first token, which determines LD."""
        if not self.has_spans:
            return list(range(len(self.prompts)))
        spans: Any = self.prompts
        return [row for row, span in enumerate(spans) if span.target[0] != span.foil[0]]

    def cases(self, rows: Sequence[int], borrowing: Collection[str]) -> "list[Case]":
        """These examples, each with the ids of its donors, which are drawn as by the engine.

        borrowing: the interventions' ActivationSource.donor.
        """
        from tinyablation.engine.donors import draw_donors
        from tinyablation.engine.hook_backends import Case

        pool = [example.cluster_id for example in self.pool]

        def drawn(row: int, lenders: "Sequence[Prompt | Span] | None", **options: Any) -> "Ids":
            ids, cluster = self.prompts[row].ids, self.examples[row].cluster_id
            every = [lender.ids for lender in lenders or ()]
            return draw_donors([ids], [cluster], every, pool, self.seed, **options)[0]

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
            template = self.templates[row] if "template_mean" in borrowing else ()
            found.append(Case(prompt.ids, target, foil, lenders, subject, template))
        return found

    def require_reference(self) -> HeldModel:
        """The model that verifies this one, loaded."""
        reference = self.held.reference
        try:
            reference.model  # noqa: B018 - loads it
        except TooLarge as refusal:
            raise Unavailable(
                f"model {self.held.entry.id!r}: a sample of what {self.held.device} computes in "
                f"{self.held.dtype} must be measured again on the CPU in float32, and that does "
                f"not fit: {refusal}"
            ) from refusal
        return reference

    def on_the_reference(self) -> "Measurement":
        """This measurement on the CPU in float32, with the same directions."""
        return Measurement(
            self.require_reference(),
            self.battery,
            self.condition,
            self.examples,
            self.pool,
            run=self.run,
            place=self.place,
            seed=self.seed,
            protocol=self.protocol,
            directions=None if self._directions is None else lambda: self.directions or {},
        )
