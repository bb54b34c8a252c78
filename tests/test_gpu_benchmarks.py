"""Benchmarks of a CUDA device, at toy size and on the CPU; nothing is timed here.

Run: pytest tests/test_gpu_benchmarks.py
"""

import argparse
import contextlib
from functools import partial

import numpy as np
import pytest

from benchmarks import device, gpu, settings, shapes
from benchmarks.record import BenchmarkError, Recording, Target, history
from tinyablation.models.bounds import Bounds
from tinyablation.models.devices import Hardware, pick

NO_GPU = Hardware(0, False, "2.13.0+cpu")


@pytest.fixture
def engine(monkeypatch):
    """benchmarks.engine, which sets what else outlives the test where it is imported."""
    for name in ("OMP_NUM_THREADS", "HF_HUB_OFFLINE"):
        monkeypatch.setenv(name, "1")
    from benchmarks import engine

    return engine


def test_without_cuda_the_gpu_benchmark_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(device, "choose_device", lambda wanted: pick(wanted, 0, NO_GPU))
    with pytest.raises(BenchmarkError, match="no CUDA device: .*this machine has cpu"):
        gpu.main(["--results", str(tmp_path)])
    assert not list(tmp_path.iterdir())


def test_necessary_operations_by_hand():
    """Gated MLPs and shared keys: one prompt of one token, the only head of the last layer."""
    one = shapes.Shape(1, 2, 1, 4, 5, 7, True)
    last = 2 * (2 * 4 + 3 * 4 * 5 + 4 * 7)
    assert shapes.necessary_operations([(3,)], [(0, 0)], one) == {"flop": last, "nodes": 1}
    # Before a last layer: there keys and values (2 of width 2), queries and outputs, two looks.
    two = one._replace(n_layers=2)
    more = 2 * (2 * 2 * 4 + 2 * 4 * 4 + 3 * 4 * 5) + 4 * 4
    found = shapes.necessary_operations([(3,), (3,)], [(0, 0)], two)
    assert found == {"flop": last + more, "nodes": 1}
    # A prefix that two prompts share counts once, and so do equal prompts.
    prompts = [(1, 2, 3), (1, 2, 4), (2,), (2,)]
    assert shapes.necessary_operations(prompts, [(0, 0)], two)["nodes"] == 5


@pytest.mark.slow
def test_the_gpu_benchmark_at_toy_size_on_the_cpu(tmp_path, engine):
    from tinyablation.corpora.examples import CONDITIONS

    recording = Recording("gpu", tmp_path)
    prompts = {name: engine.corpus_prompts(gpu.TOKENIZER, "tiny", name)[:6] for name in CONDITIONS}
    toy = shapes.Shape(3, 4, 4, 32, 64, 1500, False)
    found = gpu.small(recording, prompts, (0, 2), "cpu", shape=toy, mm_size=64)
    assert found["heads"] == 8 and set(found["conditions"]) == set(CONDITIONS)
    for each in found["conditions"].values():
        assert each["largest_effect"] > 10 * each["alone_largest_difference"]
        assert each["batched_timed_runs"] == each["alone_timed_runs"] == [3, 6]
        assert each["bounds"] == Bounds(2**21, 128)._asdict()  # of a CPU
    toy = toy._replace(n_key_value_heads=2, gated=True)
    some = gpu.first_prompts(10)
    found = gpu.large(recording, some, [(0, 0), (2, 3)], "cpu", shape=toy, mm_size=64)
    assert found["prompts"] == 10 and found["peak_bytes"] is None
    assert found["sweep_s"] > found["engine_s"] > 0
    result = recording.write({})
    bounds = [figure.target for figure in result.figures if figure.target is not None]
    assert bounds == [Target(of="ratio", at_least=gpu.RATIO)]
    assert all(figure.value > 0 for figure in result.figures)


def test_bounds_are_swept_on_one_model(tmp_path, monkeypatch):
    import torch

    from tinyablation.engine.engine import Engine

    toy = shapes.Shape(2, 2, 2, 16, 32, 1500, False)
    loaded = shapes.random_model(toy, "cpu", torch.float32)
    every = settings.settings_named("10:16,27:1024,27:1024:sdpa")
    assert [each.bounds for each in every] == [Bounds(2**10, 16), *[Bounds(2**27, 1024)] * 2]
    recording = Recording("gpu", tmp_path)
    prompts, heads = gpu.first_prompts(8), [(0, 0), (1, 1)]
    found = settings.sweep(recording, loaded, prompts, heads, every)
    assert [each["pack_nodes"] for each in found] == [16, 1024, 1024]
    assert [each["attention"] for each in found] == ["eager", "eager", "sdpa"]
    assert found[0]["largest_difference"] == 0
    assert all(each["largest_difference"] < 1e-6 for each in found[1:])
    first, second, third = recording.figures
    assert "2^10 numbers, packs of 16, eager attention" in first.what and not first.peer
    assert "2^27 numbers, packs of 1024, sdpa attention" in third.what
    assert second.ratio > 0 and second.peer_value == pytest.approx(first.value, abs=1e-3)
    right = Engine.measure

    def wrong(self, *given):
        frame = right(self, *given)
        return frame.assign(logit_diff=frame.logit_diff + self.bounds.pack_nodes)

    monkeypatch.setattr(Engine, "measure", wrong)
    with pytest.raises(BenchmarkError, match="packs of 1024, eager.* figures differ by"):
        settings.sweep(recording, loaded, prompts, heads, every)


@pytest.mark.slow
def test_the_option_sweeps_both_shapes(tmp_path, monkeypatch, engine):
    toy = shapes.Shape(2, 2, 2, 16, 32, 1500, False)
    monkeypatch.setattr(gpu, "cuda_device", lambda: "cpu")
    monkeypatch.setattr(gpu, "GPT2_SMALL", toy)
    monkeypatch.setattr(gpu, "MISTRAL_7B", toy._replace(gated=True))
    monkeypatch.setattr(gpu, "SMALL_LAYERS", (0, 1))
    monkeypatch.setattr(gpu, "SWEPT_LAYER", 1)
    gpu.main(["--bounds", "21:128,26:512:sdpa", "--prompts", "8", "--results", str(tmp_path)])
    (found,) = history(tmp_path / "gpu.json")
    assert [len(found.details[name]) for name in ("small", "large")] == [2, 2]
    assert [figure.ratio is not None for figure in found.figures] == [False, True] * 2
    small, large = found.figures[::2]
    assert "float32, zero 4 heads" in small.what
    assert "bfloat16, zero 2 heads, 8 prompts" in large.what


def test_compiled_modules_give_the_engines_figures():
    """RMS norms and gated MLPs; all layers share the graphs, and no hook is lost."""
    import torch
    from torch._dynamo.testing import CompileCounterWithBackend

    from tinyablation.engine.engine import Engine
    from tinyablation.interventions.interventions import AblateHeads, PatchMLP

    torch._dynamo.reset()
    toy = shapes.Shape(8, 4, 2, 16, 32, 1500, True)
    engine = Engine(shapes.random_model(toy, "cpu", torch.float32))
    prompts = [each for each in gpu.first_prompts(80) if len(each.ids) == 11][:12]
    assert len(prompts) == 12
    every = [AblateHeads(((0, 1),)), AblateHeads(((5, 0),)), PatchMLP(0, window=1)]
    plain = engine.measure(prompts, every, pairs=prompts[::-1])
    counter = CompileCounterWithBackend("aot_eager")
    with settings.compiled(engine, counter):
        fused = engine.measure(prompts, every, pairs=prompts[::-1])
    clean, *changed = plain.logit_diff.to_numpy().reshape(4, 12)
    np.testing.assert_allclose(fused.logit_diff, plain.logit_diff, atol=1e-6)
    assert min(np.abs(each - clean).max() for each in changed) > 1e-5
    # Graphs of norms and MLPs: one for each rank and kind of size, none for each of 8 layers.
    assert 2 <= counter.frame_count <= 12
    assert not any("forward" in vars(module) for module in engine.architecture.model.modules())


def test_settings_say_whether_modules_are_compiled(tmp_path, monkeypatch):
    import torch

    toy = shapes.Shape(2, 2, 2, 16, 32, 1500, True)
    loaded = shapes.random_model(toy, "cpu", torch.float32)
    every = settings.settings_named("10:16:eager,10:16:compiled,10:16:sdpa:compiled")
    assert [(each.attention, each.compiled) for each in every] == [
        ("eager", False),
        ("eager", True),
        ("sdpa", True),
    ]
    entered = []

    @contextlib.contextmanager
    def noted(engine):
        entered.append(engine)
        yield

    monkeypatch.setattr(settings, "compiled", noted)
    monkeypatch.setattr(settings, "require_compiler", entered.append)
    recording = Recording("gpu", tmp_path)
    found = settings.sweep(recording, loaded, gpu.first_prompts(4), [(0, 0)], every)
    assert [each["compiled"] for each in found] == [False, True, True]
    assert entered[0] == "cpu" and len(entered) == 3  # the compiler is asked once, beforehand
    assert [figure.what.endswith(", compiled") for figure in recording.figures] == [
        False,
        True,
        True,
    ]


def test_nothing_is_compiled_while_a_sweep_is_timed(tmp_path, monkeypatch):
    import torch
    from torch._dynamo.testing import CompileCounterWithBackend

    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    monkeypatch.setattr(settings, "require_compiler", lambda device: None)
    monkeypatch.setattr(settings, "compiled", partial(settings.compiled, backend=counter))
    graphs = []

    def timed(device, work):
        graphs.append(counter.frame_count)
        found = work()
        graphs.append(counter.frame_count)
        return found, 1.0

    monkeypatch.setattr(settings, "timed", timed)
    loaded = shapes.random_model(shapes.Shape(4, 4, 2, 16, 32, 1500, True), "cpu", torch.float32)
    heads = [(1, head) for head in range(4)]
    every = settings.settings_named("16:64:compiled")
    settings.sweep(Recording("gpu", tmp_path), loaded, gpu.first_prompts(40), heads, every)
    before, after = graphs
    assert before == after > 0


def test_a_compiler_that_is_missing_ends_the_benchmark_before_it_begins(tmp_path, monkeypatch):
    import torch

    def missing(function):
        raise RuntimeError("Failed to find C compiler.\nSet TORCHDYNAMO_VERBOSE")

    monkeypatch.setattr(torch, "compile", missing)
    loaded = shapes.random_model(shapes.Shape(2, 2, 2, 16, 32, 1500, True), "cpu", torch.float32)
    every = settings.settings_named("10:16,10:16:compiled")
    recording = Recording("gpu", tmp_path)
    with pytest.raises(BenchmarkError, match=r"on cpu \(Failed to find C compiler\.\): inst"):
        settings.sweep(recording, loaded, gpu.first_prompts(4), [(0, 0)], every)
    assert not recording.figures


def test_bounds_that_are_none_are_refused():
    for text in (
        "21",
        "21:128:3",
        "21:many",
        "99:128",
        "21:0",
        "",
        "21:128,21:128:flash",
        "21:128:compiled:sdpa",
    ):
        with pytest.raises(argparse.ArgumentTypeError, match="give powers|powers are"):
            settings.settings_named(text)


def test_loops_that_differ_from_the_engine_end_the_benchmark(monkeypatch):
    import torch

    toy = shapes.Shape(2, 2, 2, 16, 32, 1500, False)
    loaded = shapes.random_model(toy, "cpu", torch.float32)
    right = gpu.hooked_loop
    monkeypatch.setattr(gpu, "hooked_loop", lambda *given: right(*given) + 0.1)
    with pytest.raises(BenchmarkError, match="differ by 0.1 logits"):
        gpu.compare(loaded, gpu.first_prompts(4), [(0, 0)], toy, gpu.AGREEMENT)
