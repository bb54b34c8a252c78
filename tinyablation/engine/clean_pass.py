"""Clean passes, from which every row of a measurement starts, in chunks that fit in memory.

A chunk holds prompts of one length, one per row of a batch, or prompts with common prefixes, packed
into one row (prefix_trie.py) in which each distinct prefix is computed once.
"""

import inspect
import logging
from collections.abc import Callable, Collection, Sequence
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tinyablation.engine.architecture import Architecture, Calls, Clean, Kept, Layout
from tinyablation.engine.chunk import (
    Borrowing,
    Chunk,
    Constants,
    Item,
    Replay,
    items_of,
    lot_of,
    owners_of,
)
from tinyablation.engine.lending import TemplateMeans, lent_activations
from tinyablation.engine.logit_metrics import distribution
from tinyablation.engine.mean_pass import mean_z
from tinyablation.engine.memory import Room, ran_out
from tinyablation.engine.offload import exact
from tinyablation.engine.prefix_trie import packs, trie
from tinyablation.engine.prompt_checks import EngineError, Examples, Ids
from tinyablation.interventions.sites import OWN, ActivationSource
from tinyablation.models.bounds import RECORD_NUMBERS
from tinyablation.models.loading import LoadedModel

# How far the engine's clean logits may be from the model's own, relative to the largest logit:
# batch shape changes the order of sums (fp32: some 1e-6), a missed step changes them completely.
FORWARD_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 2e-2}
FORWARD_TOLERANCE_COARSE = 1e-1  # bfloat16: 8 bits of mantissa

# Tokens per node from which prompts are packed. At 1.65 (logic) packing saved 11 to 13 % of the
# time; this bound itself was not timed.
LEAST_SHARING = 1.25
NO_CALLS = Calls((), (), ())
# The runs of a session have their first and last prompts in common. What is kept of a verified
# length are its mask and position embeddings: .3 MB in float32 at 256 tokens.
KEPT_CALLS, KEPT_TOKENS = 64, 256
_LOG = logging.getLogger(__name__)


class CleanPasses:
    """The clean passes of one model, and the replacement constants of mean and zero_folded."""

    def __init__(self, loaded: LoadedModel, architecture: Architecture, room: Room) -> None:
        self.loaded = loaded
        self.name = loaded.entry.id
        self.architecture = architecture
        self.room = room
        # Mean z of all layers for the last reference, [layers, width], and its ids: the shards of a
        # sweep share a reference, and the means are small.
        self._mean: tuple[tuple[Ids, ...], Tensor] | None = None
        self._averages = TemplateMeans(loaded, architecture, room, RECORD_NUMBERS)
        # By length of the prompt: another one may round the last bit to the other side, and a table
        # must not depend on what was measured before.
        self._folded: dict[int, Tensor] = {}
        # By the prompts that a replay was compared for.
        self._verified: dict[tuple[Ids, ...], Calls] = {}
        self._takes_packs: bool | None = None  # None: not tried yet
        self._reads_alike = False  # whether the unembedding was found to equal the model's own

    def visit(
        self,
        examples: Examples,
        sources: Collection[ActivationSource],
        borrowing: Borrowing,
        kept: Kept,
        lent: Kept,
        constants: Constants,
        work: Callable[[Chunk], None],
    ) -> None:
        """Call `work` on clean passes over prompts of one length, shortest first, as memory allows.

        If nothing is kept, because no row starts from the passes, layers are not replayed either:
        only the unembedding is compared with the model's own, once.

        sources: those of the interventions; kept, lent: what clean passes over prompts and over
        donors keep for them; constants: replacements that do not depend on the prompt. If memory
        runs out, the work is called again, with the same prompts in smaller chunks.
        """
        buckets: dict[int, list[int]] = {}
        for index, ids in enumerate(examples.distinct):
            buckets.setdefault(len(ids), []).append(index)
        owners = owners_of(examples)
        donors = [borrowing.donors[source.donor] for source in sources if source.donor]
        is_hooked = kept != Kept()
        for length, bucket in sorted(buckets.items()):
            own = length * self._numbers(kept) + 5 * self.loaded.facts.vocab_size
            each = length * self._numbers(lent)
            costs = [
                own + each * len({of[example] for of in donors for example in owners[index]})
                for index in bucket
            ]
            calls = NO_CALLS
            if is_hooked or not self._reads_alike:
                prompts = [examples.distinct[index] for index in bucket]
                calls = self.verify(prompts, replayed=is_hooked)
                self._reads_alike = True

            def run(part: Sequence[int], length: int = length, calls: Calls = calls) -> None:
                ids = [examples.distinct[index] for index in part]
                items = {
                    source: [
                        item
                        for local, index in enumerate(part)
                        for item in items_of(local, owners[index], source, borrowing)
                    ]
                    for source in sources
                }
                work(self._chunk(ids, items, calls, kept, lent, constants))

            what = f"prompts of {length} tokens with what is recorded of them"
            for _ in self.room.parts(bucket, costs, RECORD_NUMBERS, what, run):
                pass

    def visit_packs(
        self,
        examples: Examples,
        kept: Kept,
        constants: Constants,
        most_nodes: int,
        most_prompts: int,
        work: Callable[[Chunk], None],
    ) -> None:
        """Call `work` on clean passes over packs of prompts, for interventions without a donor.

        most_nodes, most_prompts: per pack. Otherwise as `visit`. Raises EngineError if the model's
        logits of a packed prompt differ from those of the prompt alone: of the longest prompt of
        each pack, or of all of them if nothing is kept, for then a pass for each pack would cost a
        tenth or more of the time.
        """
        owners = owners_of(examples)
        is_hooked = kept != Kept()
        longest = max(range(len(examples.distinct)), key=lambda at: len(examples.distinct[at]))
        for pack in packs(examples.distinct, most_nodes, most_prompts):
            # An upper bound: shared prefixes are counted for each prompt.
            costs = [
                len(examples.distinct[index]) * self._numbers(kept)
                + 5 * self.loaded.facts.vocab_size
                for index in pack
            ]

            def run(part: Sequence[int]) -> None:
                source, borrowing = OWN, Borrowing({}, [])
                items = [
                    item
                    for local, index in enumerate(part)
                    for item in items_of(local, owners[index], source, borrowing)
                ]
                compared = is_hooked or longest in part
                prompts = [examples.distinct[index] for index in part]
                work(self._pack(prompts, items, kept, constants, compared=compared))

            for _ in self.room.parts(pack, costs, RECORD_NUMBERS, "prompts that begin alike", run):
                pass

    def can_pack(self, prompts: Sequence[Ids]) -> bool:
        """Whether prompts share enough tokens, and packed and single prompts give the same logits.

        For that the model must accept a mask and positions, and every layer must use them.
        """
        tokens = sum(len(ids) for ids in prompts)
        if tokens < LEAST_SHARING * len(trie(prompts).tokens):
            return False
        if self._takes_packs is None:
            tried = sorted(prompts, key=len)
            some = list(dict.fromkeys([tried[0], tried[len(tried) // 2], tried[-1]]))
            what = f"{sum(map(len, some))} tokens of {len(some)} prompts"
            self._takes_packs = self.room.whole(what, lambda: self._packs_agree(some))
        return self._takes_packs

    def _packs_agree(self, prompts: list[Ids]) -> bool:
        arch = self.architecture
        if not {"attention_mask", "position_ids"} <= set(
            inspect.signature(arch.model.forward).parameters
        ):
            return False
        n_layers = len(arch.layers)
        kept = Kept(residual=frozenset(range(n_layers)), attention=frozenset(range(n_layers)))
        ids, layout = self._packed(prompts)
        try:
            calls, clean = arch.recorded(ids, kept, layout)
            hidden = clean.residual[0]
            for layer in range(n_layers):
                hidden = arch.through(calls, layer, hidden, ends=layout.ends)
            # Two rows that start from the same clean row.
            twice = clean.attention[0].repeat(2, 1, 1)
            rows = arch.after_attention(calls, 0, clean.residual[0], twice)
        except (TypeError, ValueError, RuntimeError, IndexError, KeyError) as error:
            if ran_out(error):
                raise
            _LOG.info("%s: prompts are not packed: %s", self.name, error)
            return False
        whole = n_layers > 1 and rows.shape == twice.shape
        pairs = [(arch.logits(hidden.flatten(0, 1)), clean.logits)]
        pairs += [(rows[1], clean.residual[1][0])] if whole else []
        pairs += [
            (clean.logits[index], arch.own(self._tensor([alone]))[0])
            for index, alone in enumerate(prompts)
        ]
        agrees = whole and all(self._same(one, other) for one, other in pairs)
        if not agrees:
            _LOG.info("%s: prompts are not packed: its logits differ in a pack", self.name)
        return agrees

    def _same(self, ours: Tensor, theirs: Tensor) -> bool:
        """Whether two results for the same figures agree within the effect of batch shape."""
        one = exact(ours)
        other = exact(theirs).to(one.device)
        allowed = FORWARD_TOLERANCE.get(self.loaded.dtype, FORWARD_TOLERANCE_COARSE)
        return bool((one - other).abs().max() <= allowed * max(1.0, other.abs().max().item()))

    def _packed(self, prompts: Sequence[Ids]) -> tuple[Int[Tensor, "1 nodes"], Layout]:
        """The prompts' tokens in one row, and their layout."""
        nodes = trie(prompts)
        device, dtype = self.loaded.device, self.loaded.dtype
        hidden = torch.as_tensor(~nodes.visible())
        mask = torch.zeros(hidden.shape, dtype=dtype).masked_fill_(hidden, torch.finfo(dtype).min)
        inputs = {
            "attention_mask": mask[None, None].to(device),
            "position_ids": torch.as_tensor(nodes.positions)[None].to(device),
        }
        ids = torch.as_tensor(nodes.tokens)[None].to(device)
        # The index stays on the CPU, because a model's layers may be on several devices.
        return ids, Layout(torch.as_tensor(nodes.ends), inputs)

    def _pack(
        self,
        prompts: list[Ids],
        items: list[Item],
        kept: Kept,
        constants: Constants,
        *,
        compared: bool,
    ) -> Chunk:
        ids, layout = self._packed(prompts)
        calls, clean = self.architecture.recorded(ids, kept, layout)
        if compared:
            self._require_alone(prompts, clean.logits)
        length = ids.shape[1]
        clean_distribution = distribution(clean.logits)
        return Chunk(
            length,
            calls,
            clean,
            clean_distribution,
            clean_distribution.probabilities(),
            {OWN: lot_of(OWN, items, {}, length, self.loaded.device)},
            Clean({}, {}, {}, {}, torch.empty(0)),
            constants,
            prompts,
            layout.ends,
            packed=True,
        )

    def _require_alone(self, prompts: list[Ids], logits: Float[Tensor, "prompts vocab"]) -> None:
        """Raise EngineError unless the longest of the packed prompts has these logits alone."""
        last = max(range(len(prompts)), key=lambda index: len(prompts[index]))
        alone = self.architecture.own(self._tensor([prompts[last]]))[0]
        if not self._same(logits[last], alone):
            raise EngineError(
                f"model {self.name!r}: packed with prompts that begin alike, a prompt of "
                f"{len(prompts[last])} tokens has other logits than alone; try --dtype float32. If "
                "that fails too, this architecture depends on more than the preceding tokens and "
                "cannot be measured"
            )

    def _chunk(
        self,
        prompts: list[Ids],
        items: dict[ActivationSource, list[Item]],
        calls: Calls,
        kept: Kept,
        lent: Kept,
        constants: Constants,
    ) -> Chunk:
        length = len(prompts[0])
        clean = self.architecture.clean(self._tensor(prompts), kept)
        borrowers = (item for of in items.values() for item in of)
        lenders = {
            donor: row
            for row, donor in enumerate(dict.fromkeys(i.donor for i in borrowers if i.donor))
        }
        clean_distribution = distribution(clean.logits)
        return Chunk(
            length,
            calls,
            clean,
            clean_distribution,
            clean_distribution.probabilities(),
            {
                source: lot_of(source, of, lenders, length, self.loaded.device)
                for source, of in items.items()
            },
            lent_activations(
                self.loaded,
                self.architecture,
                self.room,
                list(lenders),
                length,
                lent,
                self._averages,
            ),
            constants,
            prompts,
        )

    def _numbers(self, kept: Kept) -> int:
        # Per position of a prompt.
        width = self.architecture.n_heads * self.architecture.d_head
        streams = len(kept.residual) + len(kept.attention) + len(kept.mlp)
        return streams * self.loaded.facts.d_model + len(kept.z) * width

    def verify(self, bucket: list[Ids], *, replayed: bool = True) -> Calls:
        """The calls of layers at this length; EngineError if the model's logits differ from ours.

        replayed: whether to replay layer by layer; else only what follows the layers is compared.
        Prompts that have been replayed and agreed are not replayed again.
        """
        ends = tuple(dict.fromkeys([bucket[0], bucket[-1]]))
        if not replayed:
            return self._compared(ends, len(self.architecture.layers))
        if ends not in self._verified:
            calls = self._compared(ends, 0)
            if len(bucket[0]) > KEPT_TOKENS:
                return calls
            if len(self._verified) == KEPT_CALLS:
                del self._verified[next(iter(self._verified))]
            self._verified[ends] = calls
        return self._verified[ends]

    def _compared(self, ends: tuple[Ids, ...], begin: int) -> Calls:
        """The calls of layers in passes over these prompts, whose layers from `begin` are replayed.

        Raises EngineError if logits differ from the model's own.
        """
        length = len(ends[0])
        what = f"a forward pass over a prompt of {length} tokens"
        # Both ends of the bucket at once, or one after the other if memory is short.
        parts = self.room.parts(ends, [1] * len(ends), 2, what, partial(self._replayed, begin))
        replays = [replay for _, replay in parts]
        theirs = exact(torch.cat([replay.theirs for replay in replays]))
        if not torch.isfinite(theirs).all():
            raise EngineError(
                f"model {self.name!r}: its own logits are not finite; check the weights and dtype"
            )
        allowed = FORWARD_TOLERANCE.get(self.loaded.dtype, FORWARD_TOLERANCE_COARSE)
        # Compare in the model's dtype; logits that figures are read from, within its rounding.
        for ours in ([replay.ours for replay in replays], [replay.read for replay in replays]):
            difference = (exact(torch.cat(ours)) - theirs).abs().max().item()
            if not difference <= allowed * max(1.0, theirs.abs().max().item()):
                raise EngineError(
                    f"model {self.name!r}: replayed layer by layer, its logits differ from its own "
                    f"forward by {difference:.2g} on prompts of {length} tokens; this "
                    "architecture does something between or after the layers that the engine does "
                    "not"
                )
        return replays[0].calls

    def _replayed(self, begin: int, prompts: Sequence[Ids]) -> Replay:
        """The layers from `begin` on, replayed from the inputs that the model itself gives them."""
        arch = self.architecture
        recorded = [arch.record(self._tensor([ids])) for ids in prompts]
        calls = recorded[0][0]
        ids = self._tensor(prompts)
        kept = Kept(residual=frozenset(range(begin, len(arch.layers))[:1]))
        hidden = arch.clean(ids, kept, logits=False).residual[begin]
        for layer in range(begin, len(arch.layers)):
            hidden = arch.through(calls, layer, hidden)
        own = arch.unembedding.own(hidden[:, -1])
        read = arch.logits(hidden[:, -1]) if arch.unembedding.widens else own
        theirs = torch.cat([logits for _, logits in recorded])
        return Replay(calls, theirs.to(own.device), own, read.to(own.device))

    def check_paths(self, ids: Ids, layers: Collection[int]) -> None:
        """Raise EngineError unless these layers add the attention's output as it is to the stream.

        A norm after the attention (Gemma 2, OLMo 2) would change a head's direct path.
        """
        arch = self.architecture
        if not layers:
            return
        if any(arch.layers[layer].mlp is None for layer in layers):
            raise EngineError(
                f"model {self.name!r}: its MLPs are not modules of their own, so they cannot be "
                "held at their clean outputs for path patching"
            )
        calls = self.verify([ids])
        what = f"a prompt of {len(ids)} tokens with what is recorded of it"
        self.room.whole(what, lambda: self._check_paths(calls, ids, layers))

    def _check_paths(self, calls: Calls, ids: Ids, layers: Collection[int]) -> None:
        arch = self.architecture
        kept = Kept(*(frozenset(layers) for _ in Kept._fields))
        clean = arch.clean(self._tensor([ids]), kept, logits=False)
        for layer in layers:
            hidden, attention, mlp = (
                record[layer] for record in (clean.residual, clean.attention, clean.mlp)
            )
            change = attention.flip(-1)
            before, after = (
                arch.after_mlp(calls, layer, hidden, out, mlp)
                for out in (attention, attention + change)
            )
            allowed = FORWARD_TOLERANCE.get(self.loaded.dtype, FORWARD_TOLERANCE_COARSE)
            off = (after - before - change).abs().max().item()
            if not off <= allowed * max(1.0, before.abs().max().item()):
                raise EngineError(
                    f"model {self.name!r}: layer {layer} does not add its attention's output to "
                    f"the stream as it is (off by {off:.2g}), so heads have no direct path"
                )

    def mean(self, reference: tuple[Ids, ...]) -> Float[Tensor, "layers width"]:
        """The mean of z over all tokens of these prompts except BOS; duplicates count twice."""
        if self._mean is None or self._mean[0] != reference:
            found = mean_z(self.loaded, self.architecture, self.room, reference, RECORD_NUMBERS)
            self._mean = reference, found
        return self._mean[1]

    def folded(self, ids: Ids) -> Float[Tensor, "layers width"]:
        """The replacement of z by zero_folded, computed with a prompt of these ids' length."""
        length = len(ids)
        if length not in self._folded:
            calls = self.verify([ids])
            what = f"attention over a prompt of {length} tokens"
            self._folded[length] = self.room.whole(
                what, lambda: self.architecture.folded_z(calls, length)
            )
        return self._folded[length]

    def _tensor(self, ids: Sequence[Ids]) -> Int[Tensor, "rows positions"]:
        return torch.tensor(ids, dtype=torch.long, device=self.loaded.device)
