"""Faults to put into the code, each a function of a MonkeyPatch. Not tests: test_faults.py has those."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from tests.metamorphic import table_laws
from tinyablation.analysis.coalitions import Coalitions, _parse
from tinyablation.analysis.effects import Effects
from tinyablation.analysis.patching import Patches
from tinyablation.analysis.sweeps import Sweep
from tinyablation.engine import architecture, chunk, spans
from tinyablation.engine import engine as engine_module
from tinyablation.engine.architecture import Architecture
from tinyablation.engine.changed_pass import Rows
from tinyablation.engine.clean_pass import CleanPasses
from tinyablation.engine.donors import draw_donors
from tinyablation.engine.engine import Engine
from tinyablation.engine.logit_metrics import figures
from tinyablation.interventions.interventions import METHODS, AblateHeads, PatchResidual, ScaleHeads
from tinyablation.measurement.protocols import pad_right
from tinyablation.models.loading import LoadedModel

Fault = Callable[[pytest.MonkeyPatch], None]


def at_the_last_index(patch: pytest.MonkeyPatch) -> None:
    """P1: prompts padded on the right to the longest, and read at the last index."""
    measure = Engine.measure

    def padding(self: Engine, prompts: Any, *args: Any, **given: Any) -> Any:
        if given.get("pairs") is not None:
            given["pairs"] = pad_right(given["pairs"], self.loaded)
        return measure(self, pad_right(prompts, self.loaded), *args, **given)

    patch.setattr(Engine, "measure", padding)


def without(*names: str) -> Fault:
    """The model's forward does not hear of these arguments."""

    def fault(patch: pytest.MonkeyPatch) -> None:
        import transformers as hf

        for kind in (hf.GPT2LMHeadModel, hf.LlamaForCausalLM):
            forward = kind.forward

            def deaf(self: Any, *args: Any, _forward: Any = forward, **given: Any) -> Any:
                kept = {name: value for name, value in given.items() if name not in names}
                return _forward(self, *args, **kept)

            patch.setattr(kind, "forward", deaf)

    return fault


def leaking_rows(patch: pytest.MonkeyPatch) -> None:
    """A head that one row ablates is ablated in all rows of its batch."""

    def edit_z(self: Rows, layer: int) -> Any:
        touching = [s for s in self.segments if _acts(s, layer)]

        def edit(live: torch.Tensor) -> torch.Tensor:
            live = live.clone()
            for segment in touching:
                for own in self.architecture.columns(layer, segment.intervention.columns.heads):
                    live[:, :, own] = 0
            return live

        return edit if touching else None

    def _acts(segment: Any, layer: int) -> bool:
        return any(at == layer for at, _ in segment.intervention.columns.heads)

    patch.setattr(Rows, "_edit_z", edit_z)


def _drawing(draw: Callable[..., Any]) -> Fault:
    return lambda patch: patch.setattr(engine_module, "draw_donors", draw)


def _by_number(prompts: Any, clusters: Any, *args: Any, **given: Any) -> Any:
    *rest, seed = args
    return [
        draw_donors([ids], None if clusters is None else [clusters[n]], *rest, seed + n, **given)[0]
        for n, ids in enumerate(prompts)
    ]


def _in_order_of_the_reference(
    prompts: Any, _: Any, reference: Any, *args: Any, **given: Any
) -> Any:
    found = []
    for ids in prompts:
        fit = [each for each in reference if len(each) >= len(ids) and each != ids]
        found.append(
            fit[0] if given.get("longer", True) else next(f for f in fit if len(f) == len(ids))
        )
    return found


_LAST: dict[str, Any] = {}


def _by_chance(prompts: Any, clusters: Any, *args: Any, **given: Any) -> Any:
    """Others than the last time, where there are any: true chance let two draws agree."""
    *rest, _ = args
    for seed in range(50):
        found = draw_donors(prompts, clusters, *rest, seed, **given)
        if found != _LAST.get(repr((prompts, given))):
            break
    _LAST[repr((prompts, given))] = found
    return found


donors_by_number = _drawing(_by_number)
donors_in_order = _drawing(_in_order_of_the_reference)
donors_by_chance = _drawing(_by_chance)


def means_by_the_seed(patch: pytest.MonkeyPatch) -> None:
    """The seed picks which reference prompts are averaged, too."""
    measure = Engine.measure

    def picking(self: Engine, *args: Any, **given: Any) -> Any:
        reference = given["reference"]
        given["reference"] = reference[given["seed"] % 2 :]
        return measure(self, *args, **given)

    patch.setattr(Engine, "measure", picking)


def first_mean_kept(patch: pytest.MonkeyPatch) -> None:
    """A mean is kept whatever reference it was of."""
    mean = CleanPasses.mean

    def keeping(self: CleanPasses, reference: Any) -> Any:
        return mean(self, reference) if self._mean is None else self._mean[1]

    patch.setattr(CleanPasses, "mean", keeping)


def one_is_zero(patch: pytest.MonkeyPatch) -> None:
    """Scale 1.0 is taken for an ablation."""
    patch.setattr(ScaleHeads, "plain", lambda self, _: AblateHeads(self.heads))


def donors_one_off(patch: pytest.MonkeyPatch) -> None:
    """What is lent comes from one position further left."""
    borrowed = Rows._borrowed

    def rolled(self: Rows, segment: Any, lent: torch.Tensor, live: torch.Tensor) -> Any:
        return borrowed(self, segment, lent.roll(1, dims=1), live)

    patch.setattr(Rows, "_borrowed", rolled)


def next_head(patch: pytest.MonkeyPatch) -> None:
    """The columns of the head beside the one that was meant."""
    columns = Architecture.columns

    def beside(self: Architecture, layer: int, heads: Any) -> Any:
        return columns(self, layer, tuple((at, (head + 1) % self.n_heads) for at, head in heads))

    patch.setattr(Architecture, "columns", beside)


def first_head_only(patch: pytest.MonkeyPatch) -> None:
    """Of several heads of a layer, the first."""
    columns = Architecture.columns
    patch.setattr(Architecture, "columns", lambda *args: columns(*args)[:1])


def lowest_of_the_window(patch: pytest.MonkeyPatch) -> None:
    """Of a window of residual streams the lowest layer is taken to count."""

    def plain(self: PatchResidual, n_layers: int) -> PatchResidual:
        lowest = self.layers(n_layers)[0]
        return PatchResidual(lowest, positions=self.positions, donor=self.donor)

    patch.setattr(PatchResidual, "plain", plain)


def size_of_ld(patch: pytest.MonkeyPatch) -> None:
    """LD without its sign."""

    def unsigned(*args: Any) -> Any:
        found = figures(*args)
        return {**found, "logit_diff": np.abs(found["logit_diff"])}

    patch.setattr(chunk, "figures", unsigned)


def bos_averaged(patch: pytest.MonkeyPatch) -> None:
    """The mean counts BOS, where heads look when they look nowhere."""
    patch.setattr(LoadedModel, "bos_id", property(lambda self: None), raising=False)


def folded_constant(patch: pytest.MonkeyPatch) -> None:
    """zero_folded puts something in where there is no bias."""
    folded = Architecture.folded_z
    patch.setattr(Architecture, "folded_z", lambda *args: folded(*args) + 0.1)


def foils_for_targets(patch: pytest.MonkeyPatch) -> None:
    """The later tokens of the foil are counted as the target's."""
    frame = spans._frame

    def turned(engine: Any, table: Any, asked: Any, later: Any, owners: Any) -> Any:
        return frame(engine, table, asked, [(foil, target) for target, foil in later], owners)

    patch.setattr(spans, "_frame", turned)


def neighbours_tokens(patch: pytest.MonkeyPatch) -> None:
    """Later tokens are counted for the example beside their own."""
    frame = spans._frame

    def moved(engine: Any, table: Any, asked: Any, later: Any, owners: Any) -> Any:
        return frame(engine, table, asked, [*later[1:], later[0]], owners)

    patch.setattr(spans, "_frame", moved)


def mean_of_heads(patch: pytest.MonkeyPatch) -> None:
    """Several heads change the stream by the mean of their changes."""
    sent = Rows._sent

    def shared(self: Rows, segment: Any, intervention: Any, positions: int) -> torch.Tensor:
        return sent(self, segment, intervention, positions) / len(intervention.columns.heads)

    patch.setattr(Rows, "_sent", shared)


def path_through_the_clean_mlp(patch: pytest.MonkeyPatch) -> None:
    """An ablation is taken for its direct path: the last layer's MLP stays clean."""
    final = Rows.final

    def direct(self: Rows) -> torch.Tensor:
        if self.start != (len(self.architecture.layers) - 1, 1):
            return final(self)
        clean = self.chunk.clean
        layer = self.start.layer
        changed = self._attention(
            layer,
            clean.attention[layer][:, self.chunk.ends][self.clean_rows].clone(),
            self.chunk.ends,
        )
        final(self)  # so that the MLP is seen to run
        return (
            clean.residual[layer + 1][self.clean_rows]
            + changed
            - clean.attention[layer][:, self.chunk.ends][self.clean_rows]
        ).flatten(0, 1)

    patch.setattr(Rows, "final", direct)


def matrix_on_its_side(patch: pytest.MonkeyPatch) -> None:
    """W_O as Linear keeps it, [out, in]: of square matrices the shape tells nothing."""
    patch.setattr(architecture, "_input_major", architecture.weight_of)


def hooks_left(patch: pytest.MonkeyPatch) -> None:
    """Hooks stay when the work in them is broken off."""

    @contextlib.contextmanager
    def hooked(*handles: Any) -> Iterator[None]:
        yield
        for handle in handles:
            handle.remove()

    patch.setattr(architecture, "hooked", hooked)


def stubs_left(patch: pytest.MonkeyPatch) -> None:
    """And so do stubs."""

    @contextlib.contextmanager
    def replaced(module: Any, forward: Any) -> Iterator[None]:
        module.__dict__["forward"] = forward
        yield
        del module.__dict__["forward"]

    patch.setattr(architecture, "replaced", replaced)


# Tables.


def baseline_as_it_comes(patch: pytest.MonkeyPatch) -> None:
    """Rows of the unhooked model in the table's order, not the examples'."""

    def baseline(self: Effects, split: str | None = None) -> Any:
        rows = self.table[self.table["method"] == "none"]
        rows = rows if split is None else rows[rows["split"] == split]
        return rows.reset_index(drop=True)

    patch.setattr(Effects, "baseline", baseline)


def heads_as_they_come(patch: pytest.MonkeyPatch) -> None:
    """Heads in the order in which the table has them."""

    def heads(self: Sweep) -> Any:
        return tuple(dict.fromkeys(zip(self.single["layer"], self.single["head"], strict=True)))

    patch.setattr(Sweep, "heads", property(heads))


def sets_as_they_come(patch: pytest.MonkeyPatch) -> None:
    """Head sets in the order in which the table has them."""

    def sets(self: Coalitions) -> Any:
        rows = self.table[self.table["method"].isin(METHODS)]
        return tuple(_parse(text) for text in rows["heads"].drop_duplicates())

    patch.setattr(Coalitions, "sets", property(sets))


def values_as_they_come(patch: pytest.MonkeyPatch) -> None:
    """Rows of an intervention in the table's order."""

    def values(self: Effects, label: str, split: str, column: str = "logit_diff") -> Any:
        rows = self.table[(self.table["intervention"] == label) & (self.table["split"] == split)]
        return rows[column].to_numpy(dtype=float)

    patch.setattr(Effects, "values", values)


def last_column_read(patch: pytest.MonkeyPatch) -> None:
    """A figure is found by its place among the columns."""
    change = Effects.change

    def placed(self: Effects, label: str, split: str, column: str = "logit_diff") -> Any:
        numbers = [name for name in self.table.columns if name in ("logit_diff", "layer")]
        return change(self, label, split, numbers[-1] if column == "logit_diff" else column)

    patch.setattr(Effects, "change", placed)


def gaps_as_they_come(patch: pytest.MonkeyPatch) -> None:
    """LD clean - LD corrupt of whichever rows stand beside each other."""

    def gap(self: Patches, split: str) -> Any:
        clean, corrupt = (
            each.table[(each.table["method"] == "none") & (each.table["split"] == split)]
            for each in (self.noising, self.denoising)
        )
        return clean["logit_diff"].to_numpy() - corrupt["logit_diff"].to_numpy()

    patch.setattr(Patches, "gap", gap)


def examples_by_place(patch: pytest.MonkeyPatch) -> None:
    """A row's example is taken from its place in the table."""
    impact = table_laws.head_impact

    def placed(frame: Any, run_id: str, seed: int) -> Any:
        n = frame["example"].nunique()
        return impact(frame.assign(example=np.arange(len(frame)) % n), run_id, seed)

    patch.setattr(table_laws, "head_impact", placed)
