"""What a request is measured with, and what is said to differ from its config.

Run: pytest tests/study/test_measuring.py
"""

import json

import pytest

from tests.study_files import FIRST_LAYER, put_config, put_json
from tinyablation.corpora.defects import Defect
from tinyablation.models.devices import DeviceError, Hardware
from tinyablation.study.config import read_config
from tinyablation.study.measuring import Instead, Wanted, summed, wanted


def need(root, instead: Instead | None = None, **changed) -> Wanted:
    path = put_config(root, "mine", FIRST_LAYER, **{"seeds": [0], **changed})
    if "batch_size" not in changed:
        content = json.loads(path.read_text())
        del content["batch_size"]
        put_json(path, content)
    return wanted(read_config(path).requests[0], instead or Instead())


def test_what_is_done_as_asked_is_not_said(tmp_path):
    found = need(tmp_path)
    assert found == Wanted("tiny-gpt2", None, "cpu", "float32", 0, ())


def test_names_of_models_and_revisions_are_those_here(tmp_path):
    found = need(tmp_path, model={"name": "gpt2-small", "dtype": "float16"})
    assert (found.model, found.dtype) == ("gpt2", "float16")
    model = {"name": "pythia-160m", "revision": "step1000"}
    assert need(tmp_path, model=model).revision == "step1000"
    # Another model has neither the revision nor the dtype of the config's.
    other = need(tmp_path, Instead(model="tiny-llama"), model={**model, "dtype": "float16"})
    assert (other.model, other.revision, other.dtype) == ("tiny-llama", None, None)
    assert [line.split(":")[0] for line in other.changed] == ["model", "dtype"]
    assert need(tmp_path, Instead(dtype="bfloat16"), model=model).dtype == "bfloat16"


def test_a_device_of_the_config_may_be_missing_but_not_one_that_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr("tinyablation.models.devices.look", lambda: Hardware(0, False, "2"))
    found = need(tmp_path, device="mps")
    assert found.changed == (f"device: mps is not on this machine; measured on {found.device}",)
    with pytest.raises(DeviceError):
        need(tmp_path, Instead(device="tpu"))
    assert need(tmp_path, Instead(device="cpu"), device="mps").changed == ()


@pytest.mark.parametrize(
    ("changed", "start"),
    [
        ({"seeds": [3, 1]}, "seeds: 3, 1: no seed draws anything in heads_zero; measured once"),
        ({"batch_size": 4}, "batch_size: 4 is not used"),
        ({"verify_slice": {"n_examples": 5}}, "verify_slice: not 5 examples on cpu"),
        ({"profiling": {"powermetrics": True}}, "profiling: profile.json has seconds"),
        ({"metrics": ["seq_kl_mean"]}, "metric_span: first_token; metrics of spans"),
    ],
)
def test_each_thing_that_is_not_done_as_asked_is_one_line(tmp_path, changed, start):
    (line,) = need(tmp_path, **changed).changed
    assert line.startswith(start) and "\n" not in line


def test_defects_are_summed_by_kind_with_the_first_of_each():
    found = [Defect("a", 4, "x"), Defect("b", 0, "y"), Defect("a", 2, "z"), Defect("c", 1, "w")]
    assert summed(found, ("c",)) == ["data: a: 2 (first: line 4, x)", "data: b (y)"]
