"""A model in memory: loaded as asked, dropped for good, and what it says of itself.

Run: pytest tests/measurement/test_held_model.py
"""

import json
import sys
import weakref
from subprocess import run

import pytest
import torch

from tinyablation.measurement.held_model import HeldModel
from tinyablation.models.devices import DeviceError


def held(entry, **options) -> HeldModel:
    return HeldModel(entry, **{"device": "cpu", "dtype": None, "threads": 1} | options)


@pytest.mark.parametrize(
    ("dtype", "device", "trusted"),
    [
        (None, "cpu", True),
        ("float32", "cpu", True),
        ("bfloat16", "cpu", False),
        ("float32", "cuda:1", False),
        ("float32", "mps", False),
    ],
)
def test_only_float32_on_a_cpu_is_trusted(tiny_entry, dtype, device, trusted):
    assert held(tiny_entry("llama"), dtype=dtype, device=device).is_trusted is trusted


def test_a_model_is_loaded_in_the_dtype_asked_for_and_dropped_for_good(tiny_entry):
    holder = held(tiny_entry("gpt2"), dtype="bfloat16")
    assert holder.facts.n_layers == 3 and "model" not in holder.__dict__
    assert {each.dtype for each in holder.engine.loaded.model.parameters()} == {torch.bfloat16}
    weights = weakref.ref(holder.model.model)
    holder.drop_model()
    assert weights() is None  # not some time later: another process waits for the memory
    assert holder.engine.loaded.dtype == torch.bfloat16  # and loaded again when it is needed


def test_a_narrow_model_computes_in_one_thread(tiny_entry, monkeypatch):
    before = torch.get_num_threads()
    try:
        holder = held(tiny_entry("llama"), threads=2)
        holder.model  # noqa: B018 - is loaded
        assert torch.get_num_threads() == 1
        holder.drop_model()
        monkeypatch.setattr("tinyablation.measurement.held_model.WIDE", holder.facts.d_model)
        holder.model  # noqa: B018
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


class Turn:
    def __init__(self, holder):
        self.holder, self.released = holder, 0

    def release(self):
        assert "model" not in self.holder.__dict__  # memory is freed before others are let in
        self.released += 1


def test_the_turn_is_given_back_once_after_the_model(tiny_entry):
    holder = held(tiny_entry("neox"))
    holder.engine  # noqa: B018 - loads the model
    turn = holder._residency.turn = Turn(holder)
    holder.drop_model()
    holder.drop_model()
    assert turn.released == 1


def test_only_what_others_wait_for_makes_way(tiny_entry):
    holder = held(tiny_entry("neox"))
    model = holder.model
    holder.yield_device()
    assert holder.model is model  # on a CPU nobody waits for it
    turn = holder._residency.turn = Turn(holder)
    holder.yield_device()
    assert turn.released == 1 and holder.model is not model


def test_a_device_that_is_not_there_is_said(tiny_entry):
    with pytest.raises(DeviceError, match=r"cuda:77.*this machine has"):
        held(tiny_entry("llama"), device="cuda:77").model  # noqa: B018


def test_circumstances_are_plain_values(tiny_entry):
    holder = held(tiny_entry("mistral"), dtype="float16")
    holder.engine  # noqa: B018 - loads the model
    found = holder.circumstances()
    json.dumps([dict(found.provenance), dict(found.profile), found.devices], allow_nan=False)
    assert found.provenance["attention"] == "eager"
    assert found.provenance["weights_dtype"] == "float32"
    assert found.profile["loading_seconds"] > 0 and found.profile["batch_halvings"] == 0
    assert holder.circumstances().devices[0] is found.devices[0]  # the driver is asked once


def test_holding_a_model_needs_no_torch_until_it_is_loaded():
    code = "import sys, tinyablation.measurement.bench; print('torch' in sys.modules)"
    done = run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
