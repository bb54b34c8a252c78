"""What a sweep costs: against counted FLOPs, and as docs/cluster.md quotes it.

Run: pytest tests/cluster/test_cost.py
"""

import re
import shlex
from pathlib import Path

import pytest

from tinyablation.__main__ import main
from tinyablation.cluster.cost import Cluster, PlanError, Shape, plan, sweep
from tinyablation.interventions.batteries import battery

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
LLAMA_70B = Shape(70e9, 80, 64, 8)
LAYERS, HEADS, KV_HEADS, SIZE, VOCABULARY = 6, 8, 2, 32, 500
TOKENS, PROMPTS = 9, 4


@pytest.fixture(scope="module")
def counted(tmp_path_factory):
    """The engine over a random Llama, its shape, and a counter of the FLOPs that torch makes."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import LlamaConfig, LlamaForCausalLM

    from tinyablation.corpora.tokenisation import Prompt
    from tinyablation.engine.engine import Engine
    from tinyablation.models.loading import LoadedModel, ModelFacts
    from tinyablation.models.registry import ModelEntry

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=HEADS * SIZE,
        intermediate_size=700,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        attn_implementation="eager",
    )
    model = LlamaForCausalLM(config).eval().requires_grad_(False)
    folder = tmp_path_factory.mktemp("random")
    entry = ModelEntry(
        id="random", title="Random", source=folder, family="llama", variant="plain", bos=False
    )
    facts = ModelFacts(
        architecture="LlamaForCausalLM",
        model_type="llama",
        n_layers=LAYERS,
        n_heads=HEADS,
        d_model=HEADS * SIZE,
        vocab_size=VOCABULARY,
        context=256,
        sliding_window=None,
        weight_hash="random",
        config_hash="none",
        tokenizer_hash="none",
        weight_bytes=0,
        bos=False,
        folder=folder,
    )
    loaded = LoadedModel(entry, facts, model, None, None, torch.device("cpu"), torch.float32)
    engine = Engine(loaded)
    # No two begin with the same token, so that there is no prefix to share.
    prompts = [Prompt(tuple(range(20 * n + 1, 20 * n + 1 + TOKENS)), 3, 4) for n in range(PROMPTS)]
    parameters = sum(each.numel() for each in model.parameters())
    shape = Shape(parameters, LAYERS, HEADS, KV_HEADS, SIZE, VOCABULARY)

    def count(interventions) -> float:
        with FlopCounterMode(display=False) as counter:
            engine.measure(prompts, interventions)
        return float(counter.get_total_flops())

    return shape, count


def test_rows_cost_what_torch_counts(counted):
    """Within 3 %, but for the last layer where it is run at every position: one layer more."""
    from tinyablation.interventions.interventions import AblateHeads

    shape, count = counted
    count([AblateHeads(((0, 0),))])  # replays the layers, once for these prompts
    clean = count([])
    for layer in range(LAYERS):
        rows = count([AblateHeads(((layer, head),)) for head in range(HEADS)]) - clean
        planned = PROMPTS * HEADS * shape.row(layer, TOKENS)
        more = PROMPTS * HEADS * (shape.layer(TOKENS) - shape.last_layer(TOKENS))
        assert 0.97 * planned <= rows <= 1.03 * (planned + more), layer


def test_clean_passes_cost_what_torch_counts(counted):
    """A pass a prompt, beside those that check a length of prompts (six at most)."""
    shape, count = counted
    one = shape.clean(TOKENS)
    assert 0.97 * PROMPTS * one <= count([]) <= 1.03 * (PROMPTS + 6) * one


def test_a_forward_pass_is_two_flops_a_parameter_and_token():
    body = 70e9 - 2 * 32_000 * LLAMA_70B.width
    assert LLAMA_70B.clean(12) == pytest.approx(2 * body * 12, rel=0.01)
    assert LLAMA_70B.width == 8192


def test_shards_are_those_of_the_battery():
    found = sweep(LLAMA_70B, 800, 12)
    assert found.interventions == 80 * 64
    assert found.shards == len(battery("zero").shards(80, 64)) == 81
    # Rows start at the layer of their head, half way on average; shards add clean passes.
    assert 1.9 < found.naive / found.flops < 2.1
    assert sweep(LLAMA_70B, 1600, 12).flops == pytest.approx(2 * found.flops)


def test_the_model_is_spread_over_devices_that_compute_one_at_a_time():
    one = sweep(LLAMA_70B, 800, 12)
    found = plan(LLAMA_70B, one, 8, 2.5, Cluster(32, 80e9, 300e12, "bfloat16"))
    assert (found.weights, found.spread, found.workers) == (140e9, 2, 16)
    assert found.hours == pytest.approx(20 * one.flops / (16 * 300e12) / 3600)
    larger = plan(LLAMA_70B, one, 8, 2.5, Cluster(32, 180e9, 300e12, "bfloat16"))
    assert larger.spread == 1 and larger.hours == pytest.approx(found.hours / 2)
    with pytest.raises(PlanError, match=r"280\.0 GB of weights in float32 need 4 devices"):
        plan(LLAMA_70B, one, 8, 1, Cluster(3, 80e9, 300e12, "float32"))


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((1e6, 80, 64, 8), "too few for 80 layers"),
        ((70e9, 0, 64, 8), "at least 1"),
        ((70e9, 80, 64, 7), "a multiple"),
    ],
)
def test_a_model_that_cannot_be_is_refused(shape, said):
    with pytest.raises(PlanError, match=said):
        Shape(*shape)


def quoted() -> list[tuple[str, str]]:
    """Commands of the page and what it says they print."""
    block = re.compile(
        r"```console\n\$ python -m tinyablation (plan (?:.*\\\n)*.*)\n((?:.+\n)+)```"
    )
    return [(command.replace("\\\n", " "), output) for command, output in block.findall(PAGE)]


def test_the_page_quotes_what_the_command_prints(capsys):
    assert quoted()
    for command, output in quoted():
        assert main(shlex.split(command)) == 0
        assert capsys.readouterr().out == output


def test_the_page_says_what_one_seed_costs(capsys):
    ((command, _),) = quoted()
    said = re.search(r"one seed is measured, and the plan takes ([\d.]+) hours", PAGE)
    one = re.sub(r" --share [\d.]+", "", command)
    assert main(shlex.split(one)) == 0
    assert f"hours    {said.group(1)} with" in capsys.readouterr().out


BASE = "plan --parameters 70e9 --layers 80 --heads 64 --prompts 800 --tokens 12 --rate 300"


def test_what_a_seed_costs_is_said(capsys):
    base = f"{BASE} --kv-heads 8 --conditions 8 --devices 32".split()
    assert main([*base, "--seeds", "5"]) == 0
    whole = capsys.readouterr().out
    assert "5 asked for, 1 measured" in whole and "8 runs x 81 = 648 shards" in whole
    assert main([*base, "--seeds", "5", "--share", "0.5"]) == 0
    drawn = capsys.readouterr().out
    assert "worth 2.5 sweeps" in drawn and "40 runs x 81 = 3,240 shards, worth 20 sweeps" in drawn
    assert main(base) == 0
    assert "seeds" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--conditions 0 --devices 8", "--conditions 0: give more than 0"),
        ("--conditions 1 --devices 8 --share 1.5", "--share 1.5"),
        ("--conditions 1 --devices 1", "need 2 devices"),
        ("--conditions 1 --devices 8 --device-memory 0", "--device-memory 0.0: give more"),
    ],
)
def test_a_plan_that_cannot_be_is_refused_in_one_line(capsys, options, said):
    assert main([*BASE.split(), "--kv-heads", "8", *options.split()]) == 2
    assert said in capsys.readouterr().err
