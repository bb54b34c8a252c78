"""What a real GPU does: the engine against the CPU, memory that runs out, turns, devices, noise.

Skipped where torch finds no CUDA device. What needs none of it is tested elsewhere with devices and
memory that are made up: test_engine_devices.py, test_devices.py, test_turns.py.

Run: pytest tests/engine/test_cuda.py
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.shapes import Shape, random_model
from tests.small_corpora import put_corpora
from tinyablation.corpora.examples import load_corpus
from tinyablation.corpora.tokenisation import Prompt, encode_examples
from tinyablation.engine.donors import draw_donors
from tinyablation.engine.engine import Engine
from tinyablation.engine.hook_backends import (
    BACKENDS,
    BridgeHooks,
    Case,
)
from tinyablation.engine.hook_changes import Changes
from tinyablation.interventions.copy_suppression import KeepCopySuppression
from tinyablation.interventions.interventions import (
    AblateHeads,
    Intervention,
    PatchHeads,
    PatchMLP,
    PatchPath,
    PatchResidual,
    ScaleHeads,
    Steer,
)
from tinyablation.interventions.restoration import AddNoise, RestoreState
from tinyablation.measurement.bench import Bench
from tinyablation.measurement.noise import spread
from tinyablation.measurement.precision import TOLERANCES
from tinyablation.measurement.setup import Setup
from tinyablation.models.devices import (
    DeviceError,
    choose_device,
    describe_device,
    empty_cache,
    identity_of,
    look,
    memory_of,
    peak_bytes,
    reset_peak,
)
from tinyablation.models.loading import LoadedModel, ModelFacts, load_model
from tinyablation.models.registry import load_registry
from tinyablation.runs.store import RunStore

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not torch.cuda.is_available(), reason="torch finds no CUDA device: needs a real GPU"
    ),
]

ROOT = Path(__file__).parents[2]
DEVICE = "cuda:0"
GB = 10**9
MODELS = ("tiny-gpt2", "tiny-mistral", "tiny-llama", "tiny-neox")

# The engine's promise, on any device in float32; TF32 would be off by some 1e-3 of every logit.
ORACLE_TOLERANCE = 1e-4
# The same rows in batches of another shape: sums in another order.
BATCH_TOLERANCE = 1e-4

N_EXAMPLES = 3
METHODS = ("zero", "zero_folded", "mean", "resample")


@pytest.fixture(scope="module")
def registry() -> Any:
    return load_registry(ROOT / "fixtures" / "models.toml")


class Material:
    """Aligned pairs of the embedded corpus for one model, and all that interventions borrow."""

    def __init__(self, loaded: LoadedModel) -> None:
        every = [
            example
            for example in load_corpus(ROOT / "corpora" / "tiny" / "facts.jsonl").examples
            if example.aligned
        ]
        chosen = every[:: len(every) // N_EXAMPLES][:N_EXAMPLES]
        tokenizer, bos = loaded.tokenizer, loaded.bos_id
        self.prompts = encode_examples(tokenizer, chosen, bos)
        self.pairs = encode_examples(tokenizer, chosen, bos, side="corrupt")
        self.reference = encode_examples(tokenizer, every, bos)
        self.subjects = [
            tuple(n for n, (a, b) in enumerate(zip(own.ids, other.ids, strict=True)) if a != b)
            for own, other in zip(self.prompts, self.pairs, strict=True)
        ]
        self.donors = draw_donors(
            [prompt.ids for prompt in self.prompts],
            [example.cluster_id for example in chosen],
            [prompt.ids for prompt in self.reference],
            [example.cluster_id for example in every],
            0,
        )
        self.templates = [
            tuple(each.ids for each in self.reference if len(each.ids) == len(prompt.ids))[:20]
            for prompt in self.prompts
        ]
        width = loaded.facts.d_model
        generator = torch.Generator().manual_seed(0)
        self.directions = {"truth": torch.randn(width, generator=generator)}

    def given(self) -> dict[str, Any]:
        return {
            "reference": self.reference,
            "pairs": self.pairs,
            "subjects": self.subjects,
            "directions": self.directions,
            "donors": self.donors,
            "templates": self.templates,
        }

    def cases(self) -> list[Case]:
        return [
            Case(
                prompt.ids,
                prompt.target,
                prompt.foil,
                {"self": prompt.ids, "pair": pair.ids, "resample": donor},
                subject,
                template,
            )
            for prompt, pair, donor, subject, template in zip(
                self.prompts, self.pairs, self.donors, self.subjects, self.templates, strict=True
            )
        ]


def every_kind(facts: ModelFacts) -> list[Intervention]:
    """Every kind of intervention, in the first layer, in the last and over several."""
    top, side = facts.n_layers - 1, facts.n_heads - 1
    across = ((0, 1), (1, side), (top, 0))
    return [
        *(
            AblateHeads(heads, method)  # type: ignore[arg-type]
            for heads in (((0, 0),), ((0, side),), ((1, 2),), ((top, 1),), across)
            for method in METHODS
        ),
        ScaleHeads(((0, 0), (top, 1)), -0.5),
        PatchResidual(1, 0, "subject"),
        PatchResidual(top, 0, "last"),
        PatchResidual(1, 1, "all"),
        PatchMLP(0, 0, "last"),
        PatchMLP(1, 1, "subject"),
        PatchHeads(across, "all"),
        PatchHeads(((1, 2),), "subject"),
        *(
            PatchPath(((0, 1),), layer, method)  # type: ignore[arg-type]
            for layer in (1, top, facts.n_layers)
            for method in ("zero", "mean")
        ),
        Steer(0, "truth", 0.5),
        Steer(top, "truth", -0.5),
        AblateHeads(across, "template_mean"),
        AddNoise(),
        *(RestoreState(0, 3.0, part, 1, 1) for part in ("stream", "mlp", "attention")),
        *(KeepCopySuppression(((1, 2),), 0.4, direct) for direct in (False, True)),
    ]


# --- the engine, against the CPU ------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_figures_are_those_of_one_prompt_alone_through_a_bridge_on_the_cpu(
    name: str, registry: Any, record_property: Any
) -> None:
    own = load_model(registry[name])
    material = Material(own)
    interventions = every_kind(own.facts)
    engine = Engine(load_model(registry[name], device=DEVICE))
    assert {home.type for home in engine.architecture.homes} == {torch.device(DEVICE).type}
    frame = engine.measure(material.prompts, interventions, **material.given())
    wide = frame.pivot(index="intervention", columns="example", values="logit_diff")
    oracle = Changes(
        BridgeHooks(own),
        reference=[prompt.ids for prompt in material.reference],
        bos_id=own.bos_id,
        directions=material.directions,
    )
    off, moved = 0.0, 0.0
    for example, case in enumerate(material.cases()):
        clean = oracle.clean(case)
        assert wide.loc["baseline", example] == pytest.approx(clean, abs=ORACLE_TOLERANCE)
        for intervention in interventions:
            expected = oracle.changed(case, intervention)
            found = wide.loc[intervention.label, example]
            where = f"{intervention.label}, example {example}"
            assert found == pytest.approx(expected, abs=ORACLE_TOLERANCE), where
            off, moved = max(off, abs(found - expected)), max(moved, abs(expected - clean))
    record_property("largest_difference", float(off))
    # The sentinel: hooks that silently do nothing would agree with each other.
    assert moved > 0.05


@pytest.mark.parametrize("name", MODELS)
def test_every_figure_is_that_of_the_engine_on_the_cpu(name: str, registry: Any) -> None:
    """KL, entropy, ranks and the rest, which no bridge is asked for above."""
    own = load_model(registry[name])
    material = Material(own)
    interventions = every_kind(own.facts)
    expected = Engine(own).measure(material.prompts, interventions, **material.given())
    there = Engine(load_model(registry[name], device=DEVICE))
    found = there.measure(material.prompts, interventions, **material.given())
    figures = ["logit_diff", "target_logit", "foil_logit", "target_probability", "kl", "entropy"]
    np.testing.assert_allclose(found[figures], expected[figures], rtol=0, atol=ORACLE_TOLERANCE)
    names = found.columns[: found.columns.get_loc("logit_diff")]
    assert found[names].equals(expected[names])


def hooks_of(loaded: LoadedModel) -> list[tuple[int, int, bool]]:
    """By module: how many hooks and pre-hooks it has, and whether its forward was replaced."""
    return [
        (len(m._forward_hooks), len(m._forward_pre_hooks), "forward" in vars(m))
        for m in loaded.model.modules()
    ]


@pytest.mark.parametrize("name", MODELS)
def test_the_model_is_left_as_it_was(name: str, registry: Any) -> None:
    """P20: every hook and stub is gone, and logits are the same bit for bit."""
    loaded = load_model(registry[name], device=DEVICE)
    material = Material(loaded)
    ids = torch.tensor([material.prompts[0].ids], device=DEVICE)
    # Accelerate, which puts the weights there, may have hooks of its own.
    hooks = hooks_of(loaded)
    before = loaded.model(ids).logits
    assert torch.equal(loaded.model(ids).logits, before)  # else the next line would say nothing
    Engine(loaded).measure(material.prompts, every_kind(loaded.facts), **material.given())
    assert torch.equal(loaded.model(ids).logits, before)
    assert hooks_of(loaded) == hooks


# --- whole runs, verified by the CPU in float32 ---------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("name", MODELS)
def test_runs_are_verified_by_the_cpu_and_repeat_within_their_noise(
    name: str, dtype: str, registry: Any, tmp_path: Path, record_property: Any
) -> None:
    """A run that the CPU in float32 does not confirm raises NotVerified. Beside it the same batch
    twice: whatever differs must be within the noise that the run says it has."""
    setup = Setup(
        entry=registry[name],
        corpora=put_corpora(tmp_path / "corpora", rows=(8, 8)),
        device=DEVICE,
        dtype=dtype,
    )
    bench = Bench(setup, RunStore(tmp_path / "runs"))
    run = bench.run("facts", "zero")
    found = json.loads((run.path / "verify.json").read_text())
    assert found["measured"] == {"device": DEVICE, "dtype": dtype}
    assert found["reference"] == {"device": "cpu", "dtype": "float32"}
    assert found["tolerance"] == TOLERANCES[dtype]
    # Hooks without the engine, on the same device, say the same.
    assert [check["backend"] for check in found["backends"]] == list(BACKENDS)
    assert found["backends_not_made"] == {}
    assert all(check["largest"] <= check["tolerance"] for check in found["backends"])
    floor = run.noise_floor()
    for kind in ("repeat", "shape", "reference"):
        record_property(f"noise_{kind}", found["logit_diff"][kind])
    if dtype == "float32":
        assert floor < TOLERANCES[dtype]  # in logits here, whatever the largest of them is
    prompts = bench.prompts("facts")
    heads: list[Intervention] = [AblateHeads(((0, head),)) for head in range(4)]
    tables = [bench.engine.measure(prompts, heads) for _ in range(2)]
    ways = [table.logit_diff.to_numpy().reshape(len(heads) + 1, -1) for table in tables]
    repeat = spread(ways, of_changes=True)
    record_property("same_batch_twice", repeat)
    assert repeat <= floor
    provenance = json.loads((run.path / "provenance.json").read_text())
    assert torch.cuda.get_device_name(DEVICE) in json.dumps(provenance)


# --- memory that really runs out ------------------------------------------------------------------

# GPT-2's vocabulary: logits of a whole batch take 64 MB in float32, and several times that in the
# float64 that figures are read in.
VOCABULARY = 50257
SPARE_MEGABYTES = 128


def test_a_batch_that_does_not_fit_is_halved_and_its_figures_are_the_same() -> None:
    rng = np.random.default_rng(0)
    prompts = [
        Prompt(tuple(int(token) for token in rng.integers(0, VOCABULARY, 8)), 5, 6)
        for _ in range(40)
    ]
    heads: list[Intervention] = [
        AblateHeads(((layer, head),)) for layer in range(2) for head in range(4)
    ]
    # A GPT-2 of two thin layers with GPT-2's vocabulary.
    engine = Engine(random_model(Shape(2, 4, 4, 32, 128, VOCABULARY, False), DEVICE))
    free = engine.measure(prompts, heads)
    assert engine.room.halvings == 0
    empty_cache(DEVICE)
    allowed = torch.cuda.memory_reserved(DEVICE) + SPARE_MEGABYTES * 2**20
    torch.cuda.set_per_process_memory_fraction(allowed / memory_of(DEVICE).total, DEVICE)
    try:
        tight = engine.measure(prompts, heads)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, DEVICE)
    assert engine.room.halvings > 0 and engine.room.share < 1.0
    np.testing.assert_allclose(tight.logit_diff, free.logit_diff, rtol=0, atol=BATCH_TOLERANCE)
    np.testing.assert_allclose(tight.kl, free.kl, rtol=0, atol=BATCH_TOLERANCE)
    changed = free.groupby("example").logit_diff.nunique()
    assert changed.min() > len(heads) / 2  # the tables say something
    # Room comes back with the memory.
    halvings = engine.room.halvings
    for _ in range(2):
        engine.measure(prompts, heads)
    assert engine.room.halvings == halvings


# --- what the device says of itself ---------------------------------------------------------------


def test_it_is_found_and_named() -> None:
    hardware = look()
    assert hardware.gpus == torch.cuda.device_count() > 0
    assert choose_device("auto") == choose_device("cuda") == DEVICE
    assert choose_device("auto", hardware.gpus) == DEVICE  # one worker more than there are GPUs
    with pytest.raises(DeviceError, match="use one of those"):
        choose_device(f"cuda:{hardware.gpus}")
    found = describe_device(DEVICE)
    assert found["kind"] == "cuda" and found["name"] == torch.cuda.get_device_name(DEVICE)
    assert found["runtime"] == (torch.version.cuda or torch.version.hip)
    assert found["total_memory"] > GB
    json.dumps(found, allow_nan=False)
    assert identity_of(DEVICE).startswith("cuda")


def test_its_memory_is_what_is_taken_of_it() -> None:
    empty_cache(DEVICE)
    before = memory_of(DEVICE)
    assert 0 < before.free <= before.total and before.total > GB
    assert 0 < before.room < before.total
    reset_peak(DEVICE)
    size = before.free // 4
    held = torch.empty(size, dtype=torch.uint8, device=DEVICE)
    peak = peak_bytes(DEVICE)
    assert peak is not None and peak >= size
    # Others may use the device at the same time, hence the half.
    assert memory_of(DEVICE).free <= before.free - size // 2
    del held
    empty_cache(DEVICE)
    assert memory_of(DEVICE).free >= before.free - size // 2


# --- turns ----------------------------------------------------------------------------------------

# Takes most of what the GPU has, uses some of it, and says when it had its turn.
WORKER = """
import sys, time
from pathlib import Path
import torch
from tinyablation.models.device_queue import Turns
folder, needed = sys.argv[1:]
with Turns(Path(folder)).take({"cuda:0": int(needed)}, owner="one", purpose="m"):
    began = time.monotonic()
    held = torch.ones(2**28, dtype=torch.uint8, device="cuda:0")
    time.sleep(1.0)
    del held
    torch.cuda.empty_cache()
    ended = time.monotonic()
print("turn", began, ended, flush=True)
"""
LONGEST_SECONDS = 60


def test_two_processes_take_turns_on_one_card(tmp_path: Path) -> None:
    needed = int(0.6 * memory_of(DEVICE).total)
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(tmp_path / "turns"), str(needed)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for _ in range(2)
    ]
    turns = []
    try:
        for worker in workers:
            out, _ = worker.communicate(timeout=LONGEST_SECONDS)
            assert worker.returncode == 0, out
            line = next(line for line in out.splitlines() if line.startswith("turn "))
            turns.append([float(word) for word in line.split()[1:]])
    finally:
        for worker in workers:
            worker.kill()
    first, second = sorted(turns)
    assert first[1] <= second[0], "both held more than the card has"
