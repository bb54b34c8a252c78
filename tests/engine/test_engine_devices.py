"""The engine where memory runs out, on several devices, offloaded, and in half precision.

Run: pytest tests/engine/test_engine_devices.py
"""

import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.bridging import make_prompts
from tests.conftest import FAMILIES, N_HEADS, N_LAYERS, VOCABULARY
from tests.pretended_devices import Placed, place, pretending
from tinyablation.corpora.answers import Span
from tinyablation.corpora.tokenisation import Prompt
from tinyablation.engine import clean_pass as clean
from tinyablation.engine import unembedding
from tinyablation.engine.engine import Engine, EngineError, OutOfMemory
from tinyablation.engine.head_outputs import head_outputs
from tinyablation.engine.memory import Room, ran_out
from tinyablation.engine.ov_circuits import ov_circuits
from tinyablation.engine.residual_steps import measure_geometry
from tinyablation.engine.result_table import Results
from tinyablation.engine.spans import measure_spans
from tinyablation.engine.unembedding import Unembedding
from tinyablation.heads import Head
from tinyablation.interventions.batteries import all_but
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
from tinyablation.models.loading import load_model

pytestmark = pytest.mark.slow  # a hundred measurements, a second each: make slow

ROOT = Path(__file__).parents[2]

# Rows in batches of another shape: sums in another order (3e-6 seen).
BATCH_TOLERANCE = 1e-5
# The same modules with weights from elsewhere: nothing is summed otherwise (0 seen).
PLACEMENT_TOLERANCE = 1e-6

LENGTHS = [6, 9, 6, 6, 4, 9, 6]
PROMPTS = make_prompts(LENGTHS)
GIVEN: dict[str, Any] = {
    "reference": make_prompts([6, 9, 13, 4, 13, 13], seed=1),
    "pairs": make_prompts(LENGTHS, seed=2),
    "subjects": [(2,), (1, 2, 5), (5,), (3,), (0, 1), (3, 4), (4,)],
    "directions": {"truth": torch.randn(32, generator=torch.Generator().manual_seed(0))},
    "templates": [
        tuple(each.ids for each in make_prompts([length] * 3, seed=length)) for length in LENGTHS
    ],
}
METHODS = ("zero", "zero_folded", "mean", "resample")
EVERY: list[Intervention] = [
    *(
        AblateHeads(heads, method)  # type: ignore[arg-type]
        for heads in (((0, 1),), ((1, 3),), ((2, 2),), ((0, 1), (1, 2), (2, 3)))
        for method in METHODS
    ),
    ScaleHeads(((0, 0), (2, 1)), -0.5),
    *(PatchResidual(layer, 0, "subject") for layer in range(N_LAYERS)),
    PatchResidual(1, 1, "all"),
    *(PatchMLP(layer, 0, "last") for layer in range(N_LAYERS)),
    PatchMLP(1, 1, "all"),
    PatchHeads(((0, 1), (1, 2), (2, 3)), "all"),
    PatchHeads(((1, 2),), "subject"),
    *(
        PatchPath(heads, layer, method)  # type: ignore[arg-type]
        for heads in (((0, 1),), ((1, 0), (1, 2)))
        for layer in range(heads[0][0] + 1, N_LAYERS + 1)
        for method in ("zero", "mean")
    ),
    *(Steer(layer, "truth", 0.5) for layer in range(N_LAYERS)),
    AblateHeads(((0, 1), (1, 2)), "template_mean"),
    all_but([Head(1, 2)], N_LAYERS, N_HEADS, "template_mean"),
    AddNoise(),
    *(
        RestoreState(0, 3.0, part, layer, window)
        for part, window in (("stream", 0), ("mlp", 1), ("attention", 0))
        for layer in range(N_LAYERS)
    ),
]
# It reads the whole unembedding first, which no smaller batch makes smaller.
SUPPRESSING = [KeepCopySuppression(((1, 2),), 0.4, direct) for direct in (False, True)]
FIGURES = ["logit_diff", "target_logit", "foil_logit", "target_probability", "kl", "entropy"]


def assert_same_tables(found: Any, expected: Any, tolerance: float) -> None:
    numbers = expected.columns[expected.columns.get_loc("logit_diff") :]
    others = expected.columns.difference(numbers, sort=False)
    assert found[others].equals(expected[others])
    np.testing.assert_allclose(found[FIGURES], expected[FIGURES], rtol=0, atol=tolerance)
    for name in ("target_rank", "argmax"):
        assert (found[name] == expected[name]).all()
    changed = expected.groupby("example").logit_diff.nunique()
    assert changed.min() > len(EVERY) / 2  # the tables say something


# --- memory -----------------------------------------------------------------------------------


class Tight:
    """A module that runs out of memory above some rows; what it was given is to be let go of."""

    def __init__(self, module: torch.nn.Module, limit: int, error: BaseException | None = None):
        self.limit = limit
        self.error = error or torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.")
        self.accepted: list[int] = []
        self.refused: list[int] = []
        self.left: list[weakref.ref[torch.Tensor]] = []
        self.handle = module.register_forward_pre_hook(self, with_kwargs=True)

    def __call__(self, module: Any, args: Any, kwargs: Any) -> None:
        values = args[0] if args else kwargs["hidden_states"]
        # What was refused before is gone, traceback and frames with it.
        assert not any(reference() is not None for reference in self.left)
        if len(values) > self.limit:
            self.refused.append(len(values))
            self.left.append(weakref.ref(values))
            raise type(self.error)(*self.error.args)  # a new one: errors keep their tracebacks
        self.accepted.append(len(values))


@contextmanager
def tight(module: torch.nn.Module, limit: int, error: BaseException | None = None) -> Iterator[Any]:
    made = Tight(module, limit, error)
    try:
        yield made
    finally:
        made.handle.remove()


def written_once(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """A check that every figure was entered once, no more and no less."""
    counts: list[np.ndarray] = []
    write, init = Results.write, Results.__init__

    def begin(self: Results, n_interventions: int, n_examples: int) -> None:
        init(self, n_interventions, n_examples)
        counts.append(np.zeros((n_interventions, n_examples), int))

    def counting(self: Results, position: int, which: np.ndarray, found: Any) -> None:
        write(self, position, which, found)
        np.add.at(counts[-1][position], which, 1)

    monkeypatch.setattr(Results, "__init__", begin)
    monkeypatch.setattr(Results, "write", counting)

    def check() -> None:
        assert counts and all((each == 1).all() for each in counts)

    return check


def modules(engine: Engine) -> dict[str, tuple[torch.nn.Module, int]]:
    """Where memory may run out, and the rows there is room for.

    Clean passes, of prompts, references and donors alone, begin at the embedding; rows meet MLPs,
    where clean passes have no more than the 4 prompts of one length; all end at the final norm.
    """
    mlp = engine.architecture.layers[2].mlp
    assert mlp is not None
    return {
        "clean": (engine.loaded.model.get_input_embeddings(), 1),
        "rows": (mlp, 5),
        "unembedding": (engine.architecture.final_norm, 3),
    }


@pytest.mark.parametrize("place", ["clean", "rows", "unembedding"])
@pytest.mark.parametrize("family", FAMILIES)
def test_where_memory_runs_out_the_table_is_the_same(
    family: str,
    place: str,
    tiny_models: Any,
    engines: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    expected = engines[family].measure(PROMPTS, EVERY, **GIVEN)
    engine = Engine(tiny_models[family])
    check = written_once(monkeypatch)
    capsys.readouterr()
    with tight(*modules(engine)[place]) as module:
        found = engine.measure(PROMPTS, EVERY, **GIVEN, progress=True)
    assert_same_tables(found, expected, BATCH_TOLERANCE)
    check()
    assert engine.room.halvings == len(module.refused) > 0
    assert max(module.accepted) <= module.limit
    # The bar ends where it should; without biases zero_folded is zero, and measured once.
    same = 0 if family in ("gpt2", "neox") else len(EVERY[:16]) // len(METHODS)
    total = len(PROMPTS) * (1 + len(EVERY) - same)
    assert f" {total}/{total} " in capsys.readouterr().err.splitlines()[-1]


def test_the_batch_is_halved_and_no_more(tiny_models: Any) -> None:
    """32 rows, then 16, then 8, which fit; and so are all after them."""
    engine = Engine(tiny_models["llama"])
    prompts = make_prompts([6] * 8)
    heads: list[Intervention] = [AblateHeads(((0, head),)) for head in range(N_HEADS)]
    mlp = engine.architecture.layers[0].mlp
    assert mlp is not None
    with tight(mlp, 8) as module:
        engine.measure(prompts, heads)
    assert module.refused == [32, 16] and engine.room.halvings == 2
    assert module.accepted[-4:] == [8, 8, 8, 8]


def test_it_goes_on_from_where_it_stood(tiny_models: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory runs out once, in the sixth batch: what was written before is not computed again."""
    engine = Engine(tiny_models["gpt2"])
    prompts = make_prompts([6] * 8)
    heads: list[Intervention] = [AblateHeads(((0, head),)) for head in range(N_HEADS)]
    engine.bounds = engine.bounds._replace(batch=4 * 6 * 32, logits=4 * VOCABULARY)
    rows: list[int] = []
    run = Engine._run

    def counting(self: Engine, chunk: Any, start: Any, segments: Any) -> torch.Tensor:
        rows.append(segments[-1].rows.stop)
        if len(rows) == 6:
            raise MemoryError
        return run(self, chunk, start, segments)

    expected = engine.measure(prompts, heads)
    check = written_once(monkeypatch)
    monkeypatch.setattr(Engine, "_run", counting)
    found = engine.measure(prompts, heads)
    check()
    np.testing.assert_allclose(found[FIGURES], expected[FIGURES], rtol=0, atol=BATCH_TOLERANCE)
    # Five batches of 4 rows are written; the other 12 rows follow, 2 at a time.
    assert rows == [4] * 6 + [2] * 6


# A model whose logits of a whole batch take 128 MB in float64, several times over, measured once as
# it comes, and once with little more memory than the process has by then.
LIMITED = """
import ctypes, re, resource, sys
from types import SimpleNamespace as Some
import numpy as np, torch, transformers as hf
from tinyablation.engine.engine import Engine
from tinyablation.interventions.interventions import AblateHeads
from tinyablation.corpora.tokenisation import Prompt
torch.manual_seed(0)
size = {"vocab_size": 50257, "n_positions": 32, "n_embd": 32, "n_layer": 2, "n_head": 4}
model = hf.GPT2LMHeadModel(hf.GPT2Config(**size, attn_implementation="eager"))
facts = Some(n_layers=2, n_heads=4, d_model=32, vocab_size=50257, context=32, sliding_window=None)
loaded = Some(entry=Some(id="limited"), facts=facts, model=model.eval().requires_grad_(False),
              bos_id=None, device=torch.device("cpu"), dtype=torch.float32)
rng = np.random.default_rng(0)
prompts = [Prompt(tuple(map(int, rng.integers(0, 50257, 8))), 5, 6) for _ in range(40)]
heads = [AblateHeads(((layer, head),)) for layer in range(2) for head in range(4)]
engine = Engine(loaded)
free = engine.measure(prompts, heads)
assert engine.room.halvings == 0
getattr(ctypes.CDLL(None), "malloc_trim", bool)(0)  # else what the first run left would do
kilobytes = int(re.search(r"VmSize:\\s+(\\d+)", open("/proc/self/status").read())[1])
resource.setrlimit(resource.RLIMIT_AS, ((kilobytes + 60 * 1024) * 1024, resource.RLIM_INFINITY))
tight = engine.measure(prompts, heads)
print(engine.room.halvings, np.abs(tight.logit_diff - free.logit_diff).max())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits of address space are Linux's")
def test_a_process_that_really_has_no_memory_left() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", LIMITED], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert ran.returncode == 0, ran.stderr
    halvings, difference = ran.stdout.split()
    assert int(halvings) > 0 and float(difference) < BATCH_TOLERANCE


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
        RuntimeError("MPS backend out of memory (MPS allocated: 9 GB, max allowed: 9 GB)."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        MemoryError(),
    ],
)
def test_every_device_says_it_in_its_own_way(error: Any, tiny_models: Any, engines: Any) -> None:
    assert ran_out(error)
    engine = Engine(tiny_models["mistral"])
    with tight(*modules(engine)["rows"], error) as module:
        found = engine.measure(PROMPTS, EVERY, **GIVEN)
    assert module.refused
    expected = engines["mistral"].measure(PROMPTS, EVERY, **GIVEN)
    assert_same_tables(found, expected, BATCH_TOLERANCE)


@pytest.mark.parametrize("place", ["clean", "rows", "unembedding"])
@pytest.mark.parametrize("family", ["gpt2", "neox"])
def test_a_row_that_does_not_fit_ends_it(family: str, place: str, tiny_models: Any) -> None:
    engine = Engine(tiny_models[family])
    with (
        tight(modules(engine)[place][0], 0),
        pytest.raises(OutOfMemory, match=f"random-{family}.*single row.*tokens") as raised,
    ):
        engine.measure(PROMPTS, EVERY, **GIVEN)
    for advice in ("--dtype bfloat16", "smaller model", "--device cpu", "Tried to allocate 9 GiB"):
        assert advice in str(raised.value)
    assert isinstance(raised.value, EngineError)


def test_one_row_of_one_prompt_is_tried_before_it_ends(tiny_models: Any) -> None:
    """Rows never fit, clean passes do: from 4 prompts and their rows down to one of each."""
    engine = Engine(tiny_models["llama"])
    refused: list[tuple[int, int]] = []

    def run(chunk: Any, start: Any, segments: Any) -> torch.Tensor:
        refused.append((segments[-1].rows.stop, len(chunk.clean.logits)))
        raise torch.OutOfMemoryError("CUDA out of memory.")

    engine._run = run  # type: ignore[method-assign]
    prompts = make_prompts([6] * 4)
    with pytest.raises(OutOfMemory):
        engine.measure(prompts, [AblateHeads(((0, head),)) for head in range(N_HEADS)])
    assert refused[0] == (16, 4) and refused[-1] == (1, 1)
    assert all(a >= b for a, b in pairwise(refused))


def test_other_errors_are_not_taken_for_it(tiny_models: Any) -> None:
    engine = Engine(tiny_models["gpt2"])
    wrong = RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    assert not ran_out(wrong) and not ran_out(ValueError("out of memory"))
    with (
        tight(*modules(engine)["rows"], wrong),
        pytest.raises(RuntimeError, match="shapes cannot be multiplied"),
    ):
        engine.measure(PROMPTS, EVERY, **GIVEN)
    assert engine.room.halvings == 0


def test_room_comes_back(tiny_models: Any) -> None:
    """A measurement in which memory sufficed lets the next one try twice as much."""
    engine = Engine(tiny_models["gpt2"])
    prompts = make_prompts([6] * 8)
    heads: list[Intervention] = [AblateHeads(((0, head),)) for head in range(N_HEADS)]
    with tight(*modules(engine)["rows"]):
        engine.measure(prompts, heads)
    small = engine.room.share
    assert small < 1.0
    engine.measure(prompts, heads)
    assert engine.room.share == small  # the measurement before it had halved
    engine.measure(prompts, heads)
    assert engine.room.share == 2 * small
    for _ in range(40):
        engine.room.begin()
    assert engine.room.share == 1.0


def test_parts_cost_what_there_is_room_for() -> None:
    room = Room("model")
    costs = [3, 3, 3, 9, 1, 1]

    def cut() -> list[list[int]]:
        return [list(part) for part, _ in room.parts(range(6), costs, 7, "x", lambda part: None)]

    assert cut() == [[0, 1], [2], [3], [4, 5]]
    room.share = 0.5
    assert cut() == [[0], [1], [2], [3], [4, 5]]


@pytest.mark.parametrize("place", ["clean", "rows", "unembedding"])
def test_spans_are_halved_too(
    place: str, tiny_models: Any, engines: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A span's prompts begin alike; packed, they are too few rows to be halved.
    monkeypatch.setattr(clean, "LEAST_SHARING", np.inf)
    spans = [
        Span(prompt.ids, (prompt.target, 5, 6)[: 1 + index % 3], (prompt.foil, 9))
        for index, prompt in enumerate(PROMPTS)
    ]
    interventions: list[Intervention] = [
        AblateHeads(((layer, 1),), method)  # type: ignore[arg-type]
        for layer in range(N_LAYERS)
        for method in ("zero", "mean")
    ]
    expected = measure_spans(engines["gpt2"], spans, interventions, reference=spans)
    engine = Engine(tiny_models["gpt2"])
    with tight(*modules(engine)[place]):
        found = measure_spans(engine, spans, interventions, reference=spans)
    assert engine.room.halvings
    spanning = [*FIGURES, "seq_logprob_diff", "seq_probability", "seq_kl_mean"]
    np.testing.assert_allclose(found[spanning], expected[spanning], rtol=0, atol=BATCH_TOLERANCE)


def test_mean_outputs_are_halved_too(tiny_models: Any, engines: Any) -> None:
    engine = Engine(tiny_models["neox"])
    with tight(*modules(engine)["clean"]):
        found = head_outputs(engine, PROMPTS)
    assert engine.room.halvings
    assert (found - head_outputs(engines["neox"], PROMPTS)).abs().max() < BATCH_TOLERANCE


# --- offloaded --------------------------------------------------------------------------------


def offloaded(entry: Any, loaded: Any, folder: Path, **options: Any) -> Any:
    """The model with layers 1 and 2, final norm and unembedding on disk, as accelerate puts them.

    A tied unembedding stays with the embedding: transformers finds no file for it.
    """
    import transformers as hf

    engine = Engine(loaded)
    layers, arch = [layer.block for layer in engine.architecture.layers], engine.architecture
    away = {*layers[1:], arch.final_norm}
    if not loaded.model.config.tie_word_embeddings:
        away.add(arch.unembed)
    device_map = {
        name: "disk" if module in away else "cpu"
        for name, module in loaded.model.named_modules()
        if module in {*layers, *away} or not list(module.children())
        if not any(name.startswith(f"{block}.") for block in names_of(loaded.model, layers))
    }
    model = hf.AutoModelForCausalLM.from_pretrained(
        entry.source,
        dtype=options.pop("dtype", loaded.dtype),
        attn_implementation="eager",
        device_map=device_map,
        offload_folder=folder,
        local_files_only=True,
    )
    model = model.eval().requires_grad_(False)
    return replace(loaded, model=model, dtype=model.dtype)


def names_of(model: torch.nn.Module, found: list[torch.nn.Module]) -> list[str]:
    return [name for name, module in model.named_modules() if module in found]


def on_meta(model: torch.nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.is_meta}


@pytest.mark.parametrize("family", FAMILIES)
def test_layers_on_disk_give_the_same_table(
    family: str, tiny_entry: Any, tiny_models: Any, engines: Any, tmp_path: Path
) -> None:
    loaded = offloaded(tiny_entry(family), tiny_models[family], tmp_path)
    assert set(loaded.model.hf_device_map.values()) == {"cpu", "disk"}
    away = on_meta(loaded.model)
    assert away and away < {name for name, _ in loaded.model.named_parameters()}
    ids = torch.tensor([PROMPTS[0].ids])
    before = loaded.model(ids).logits
    engine = Engine(loaded)
    found = engine.measure(PROMPTS, [*EVERY, *SUPPRESSING], **GIVEN)
    expected = engines[family].measure(PROMPTS, [*EVERY, *SUPPRESSING], **GIVEN)
    assert_same_tables(found, expected, PLACEMENT_TOLERANCE)
    # accelerate's own forward is back on every module, and what was away is away again.
    assert on_meta(loaded.model) == away
    assert torch.equal(loaded.model(ids).logits, before)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in loaded.model.modules())


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_kept_in_another_memory_give_the_same_table(
    family: str, tiny_entry: Any, engines: Any
) -> None:
    """accelerate.cpu_offload: all parameters on meta, each brought for its module's call alone."""
    from accelerate import cpu_offload

    loaded = load_model(tiny_entry(family))
    cpu_offload(loaded.model, execution_device=torch.device("cpu"))
    assert len(on_meta(loaded.model)) == len(list(loaded.model.named_parameters()))
    engine = Engine(loaded)
    found = engine.measure(PROMPTS, [*EVERY, *SUPPRESSING], **GIVEN)
    expected = engines[family].measure(PROMPTS, [*EVERY, *SUPPRESSING], **GIVEN)
    assert_same_tables(found, expected, PLACEMENT_TOLERANCE)


@pytest.mark.parametrize("family", FAMILIES)
def test_circuits_of_layers_on_disk(
    family: str, tiny_entry: Any, tiny_models: Any, engines: Any, tmp_path: Path
) -> None:
    engine = Engine(offloaded(tiny_entry(family), tiny_models[family], tmp_path))
    plain = engines[family]
    assert torch.equal(head_outputs(engine, PROMPTS), head_outputs(plain, PROMPTS))
    for found, expected in zip(ov_circuits(engine), ov_circuits(plain), strict=True):
        for ours, theirs in zip(found, expected, strict=True):
            assert (ours - theirs).abs().max() < PLACEMENT_TOLERANCE


@pytest.mark.parametrize("family", FAMILIES)
def test_half_precision_on_disk(
    family: str, tiny_entry: Any, tiny_models: Any, tmp_path: Path
) -> None:
    """Norm and unembedding are widened also where they are away."""
    whole = Engine(load_model(tiny_entry(family), dtype="bfloat16"))
    loaded = offloaded(tiny_entry(family), tiny_models[family], tmp_path, dtype=torch.bfloat16)
    engine = Engine(loaded)
    assert engine.architecture.unembedding.widens
    found = engine.measure(PROMPTS, EVERY, **GIVEN)
    assert_same_tables(found, whole.measure(PROMPTS, EVERY, **GIVEN), PLACEMENT_TOLERANCE)


def test_memory_running_out_amidst_offloaded_layers(
    tiny_entry: Any, tiny_models: Any, engines: Any, tmp_path: Path
) -> None:
    loaded = offloaded(tiny_entry("mistral"), tiny_models["mistral"], tmp_path)
    away = on_meta(loaded.model)
    engine = Engine(loaded)
    with tight(*modules(engine)["rows"]):
        found = engine.measure(PROMPTS, EVERY, **GIVEN)
    assert engine.room.halvings and on_meta(loaded.model) == away
    expected = engines["mistral"].measure(PROMPTS, EVERY, **GIVEN)
    assert_same_tables(found, expected, BATCH_TOLERANCE)


def test_weights_that_are_nowhere_are_refused(tiny_entry: Any) -> None:
    loaded = load_model(tiny_entry("llama"))
    with pytest.raises(EngineError, match="meta device"):
        Engine(replace(loaded, model=loaded.model.to("meta")))


# --- several devices --------------------------------------------------------------------------


def spread(loaded: Any, first: str, second: str) -> Any:
    """Layer 1, and where nothing ties it the end of the model, on the second device."""
    arch = Engine(loaded).architecture
    there = [arch.layers[1].block, arch.final_norm]
    if not loaded.model.config.tie_word_embeddings:
        there.append(arch.unembed)
    devices = {"": first, **dict.fromkeys(names_of(loaded.model, there), second)}
    place(loaded.model, devices)
    return replace(loaded, device=torch.device(first))


def test_pretended_devices_do_not_mix() -> None:
    with pretending():
        here, there = torch.ones(2, device="cuda:0"), torch.ones(2, device="cuda:1")
        assert isinstance(here, Placed) and here.device == torch.device("cuda:0")
        for mixed in (
            lambda: here + there,
            lambda: torch.cat([here, there]),
            lambda: here + torch.ones(2),
            lambda: torch.zeros(2).__setitem__(slice(None), here),
            lambda: torch.zeros(2)[here.long()],
        ):
            with pytest.raises(RuntimeError, match="same device"):
                mixed()
        with pytest.raises(TypeError, match="numpy"):
            here.numpy()
        with pytest.raises(TypeError, match="float64"):
            torch.ones(2, device="mps:0").double()
        moved = here.to("cuda:1")
        moved += there
        assert moved.device == there.device and moved.cpu().tolist() == [2.0, 2.0]
        assert here.tolist() == [1.0, 1.0] and here[torch.tensor([1])].device == here.device


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_layers_on_two_devices_give_the_same_table(
    family: str, dtype: str, tiny_entry: Any
) -> None:
    every = [*EVERY, *SUPPRESSING]
    expected = Engine(load_model(tiny_entry(family), dtype=dtype)).measure(PROMPTS, every, **GIVEN)
    loaded = spread(load_model(tiny_entry(family), dtype=dtype), "cuda:0", "cuda:1")
    with pretending():
        engine = Engine(loaded)
        assert [home.index for home in engine.architecture.homes] == [0, 1, 0, 1]
        found = engine.measure(PROMPTS, every, **GIVEN)
    assert_same_tables(found, expected, PLACEMENT_TOLERANCE)


@pytest.mark.parametrize("family", FAMILIES)
def test_circuits_and_geometry_on_two_devices(family: str, tiny_entry: Any, engines: Any) -> None:
    plain = engines[family]
    sets = [((1, 0),), ((1, 1), (1, 2))]
    loaded = spread(load_model(tiny_entry(family)), "cuda:0", "cuda:1")
    with pretending():
        engine = Engine(loaded)
        outputs = head_outputs(engine, PROMPTS).cpu()
        circuits = [[each.cpu() for each in layer] for layer in ov_circuits(engine)]
        geometry = measure_geometry(engine, PROMPTS, sets, layer=1)
    assert torch.equal(outputs, head_outputs(plain, PROMPTS))
    for found, expected in zip(circuits, ov_circuits(plain), strict=True):
        for ours, theirs in zip(found, expected, strict=True):
            assert (ours - theirs).abs().max() < PLACEMENT_TOLERANCE
    expected_table = measure_geometry(plain, PROMPTS, sets, layer=1).table
    numbers = expected_table.select_dtypes("number")
    np.testing.assert_allclose(
        geometry.table[numbers.columns], numbers, rtol=0, atol=PLACEMENT_TOLERANCE
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_a_device_without_float64(family: str, tiny_entry: Any, engines: Any) -> None:
    """MPS: figures are float64 all the same, on the CPU."""
    loaded = spread(load_model(tiny_entry(family)), "mps:0", "mps:0")
    with pretending():
        engine = Engine(loaded)
        found = engine.measure(PROMPTS, [*EVERY, *SUPPRESSING], **GIVEN)
        outputs = head_outputs(engine, PROMPTS)
        circuits = ov_circuits(engine)
    expected = engines[family].measure(PROMPTS, [*EVERY, *SUPPRESSING], **GIVEN)
    assert_same_tables(found, expected, PLACEMENT_TOLERANCE)
    assert torch.equal(outputs, head_outputs(engines[family], PROMPTS))
    for ours, theirs in zip(circuits, ov_circuits(engines[family]), strict=True):
        assert (ours.direction - theirs.direction).abs().max() < PLACEMENT_TOLERANCE


# --- precision --------------------------------------------------------------------------------

# What half precision costs in the change of LD, root mean square over heads and prompts, where
# logits are some 20 (GPT-2's are -30 to -100, Llama's 10 to 20): with norm and unembedding in
# float32 it is less by this factor at least. Seen, by family: bfloat16 .063 -> .018, .069 -> .036,
# .071 -> .038, .057 -> .014; float16 .0085 -> .0026, .0095 -> .0050, .0095 -> .0056, .0077 ->
# .0017. Where logits are about 0 the layers' own rounding is nearly all there is (seen: 1.01 to
# 1.18 times less), so little is gained, and nothing lost.
GAIN = 1.5
NO_LOSS = 0.98
# A common part of all logits; no logit difference, and no probability, has it in it.
RAISED = 20.0
# The same sums, of the same numbers in float32, in another order.
FLOAT32 = 1e-4


def raised(loaded: Any, dtype: torch.dtype, by: float) -> Any:
    """The model in another dtype, with all logits raised alike by about so much."""
    arch = Engine(loaded).architecture
    weight = arch.unembed.weight.detach().clone()
    rows = []
    with arch.final_norm.register_forward_hook(lambda _, args, out: rows.append(out[0])):
        for prompt in PRECISE:
            loaded.model(torch.tensor([prompt.ids]))
    mean = torch.cat(rows).mean(dim=0)
    arch.unembed.weight = torch.nn.Parameter(weight + by * mean / (mean @ mean))
    model = loaded.model.to(dtype).requires_grad_(False)
    return replace(loaded, model=model, dtype=dtype)


PRECISE = make_prompts([6, 8, 10] * 8, seed=5)
SINGLES: list[Intervention] = [
    AblateHeads(((layer, head),), method)  # type: ignore[arg-type]
    for layer in range(N_LAYERS)
    for head in range(N_HEADS)
    for method in ("zero", "mean")
]


def changes(engine: Engine) -> np.ndarray:
    """The change of LD, [interventions, prompts]."""
    table = engine.measure(PRECISE, SINGLES, reference=PRECISE)
    values = table.logit_diff.to_numpy().reshape(-1, len(PRECISE))
    return values[1:] - values[:1]


@pytest.mark.parametrize("by", [0.0, RAISED])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", FAMILIES)
def test_half_precision_costs_less_with_logits_in_float32(
    family: str, dtype: torch.dtype, by: float, tiny_entry: Any, record_property: Any
) -> None:
    loaded = raised(load_model(tiny_entry(family)), dtype, by)
    engine = Engine(loaded)
    after = changes(engine)
    engine.architecture.unembedding.widens = False
    before = changes(engine)
    # The same weights, rounded as they are.
    exact = changes(Engine(replace(loaded, model=loaded.model.float(), dtype=torch.float32)))
    errors = [float(np.sqrt(((found - exact) ** 2).mean())) for found in (before, after)]
    record_property("errors", errors)
    assert errors[0] > (GAIN if by else NO_LOSS) * errors[1] > 0


@pytest.mark.parametrize("numbers", [1, 32 * 7, 2**24])
@pytest.mark.parametrize("family", FAMILIES)
def test_wide_logits_are_those_of_the_widened_model(
    family: str, numbers: int, tiny_entry: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Piece by piece of the vocabulary, and the modules are left as they were."""
    monkeypatch.setattr(unembedding, "WIDENED_NUMBERS", numbers)
    loaded = load_model(tiny_entry(family), dtype="bfloat16")
    arch = Engine(loaded).architecture
    hidden = torch.randn(5, 32, generator=torch.Generator().manual_seed(0)).bfloat16()
    with torch.no_grad():
        found, own = arch.logits(hidden), arch.unembedding.own(hidden)
    assert found.dtype == torch.float32 and own.dtype == torch.bfloat16
    assert {p.dtype for p in loaded.model.parameters()} == {torch.bfloat16}
    assert not any("forward" in vars(module) for module in loaded.model.modules())
    wide = loaded.model.float()
    with torch.no_grad():
        expected = Engine(replace(loaded, model=wide, dtype=torch.float32)).architecture.logits(
            hidden.float()
        )
    assert (found - expected).abs().max() < FLOAT32 < (own - expected).abs().max()


@pytest.mark.parametrize("affine", [True, False])
def test_an_unembedding_with_a_bias_is_widened_with_it(affine: bool) -> None:
    """Also behind a norm without weights (OLMo)."""
    torch.manual_seed(0)
    norm = torch.nn.LayerNorm(8, elementwise_affine=affine).bfloat16()
    unembed = torch.nn.Linear(8, 11).bfloat16()
    hidden = torch.randn(3, 8).bfloat16()
    with torch.no_grad():
        found = Unembedding(norm, unembed)(hidden)
        expected = unembed.float()(norm.float()(hidden.float()))
    assert (found - expected).abs().max() < FLOAT32


def test_what_is_no_norm_and_matrix_is_left_to_the_model(tiny_models: Any) -> None:
    class Capped(torch.nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.tanh(super().forward(x))

    hidden = torch.randn(3, 8).bfloat16()
    for norm, unembed in (
        (torch.nn.Sequential(torch.nn.LayerNorm(8)), torch.nn.Linear(8, 11)),
        (torch.nn.LayerNorm(8), Capped(8, 11)),
    ):
        made = Unembedding(norm.bfloat16(), unembed.bfloat16())
        assert not made.widens
        assert torch.equal(made(hidden), unembed(norm(hidden)))
    assert not Engine(tiny_models["gpt2"]).architecture.unembedding.widens


@pytest.mark.parametrize("off", ["own", "__call__"])
@pytest.mark.parametrize("asked", [[], [AblateHeads(((0, 0),))]])
def test_half_precision_is_guarded_in_both_ways(
    off: str, asked: Any, tiny_entry: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against the model's own logits: the layers replayed in its dtype, and what figures use."""
    loaded = load_model(tiny_entry("llama"), dtype="bfloat16")
    Engine(loaded).measure(PROMPTS, asked)
    right = getattr(Unembedding, off)
    monkeypatch.setattr(Unembedding, off, lambda self, hidden: right(self, hidden) + 2.0)
    with pytest.raises(EngineError, match="differ from its own forward"):
        Engine(loaded).measure(PROMPTS, asked)


def test_baselines_in_half_precision_read_from_one_place(tiny_entry: Any) -> None:
    """Baseline and rows alike: an identity that is really run changes rounding alone."""
    engine = Engine(load_model(tiny_entry("gpt2"), dtype="bfloat16"))
    prompt = Prompt(PROMPTS[0].ids, 7, 8)
    engine._canonical = lambda intervention, _: intervention  # type: ignore[method-assign]
    frame = engine.measure([prompt], [ScaleHeads(((N_LAYERS - 1, 0),), 1.0)])
    assert frame.logit_diff[1] == frame.logit_diff[0]
    assert frame.logit_diff[0] != float(torch.tensor(frame.logit_diff[0]).bfloat16())
