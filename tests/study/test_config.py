"""Configs of the study: both shapes, and refusals in one line with the nearest known key.

Run: pytest tests/study/test_config.py
"""

import json

import pytest

from tests.study_files import CONDITIONS, HEADS, PAIRS, put_config, put_json, settings
from tinyablation.study.batteries import HeadsPairZero, HeadsZero
from tinyablation.study.config import read_config
from tinyablation.study.objects import StudyError


def refused(path, root=None) -> list[str]:
    with pytest.raises(StudyError) as caught:
        read_config(path, root)
    return str(caught.value).splitlines()


def test_a_single_config_is_one_request(tmp_path):
    path = put_config(tmp_path, "h1", HEADS, metric_span="full_target")
    config = read_config(path)
    assert (config.root, config.is_crossed) == (tmp_path, False)
    (request,) = config.requests
    assert isinstance(request.battery, HeadsZero)
    assert request.condition == "facts_single_token_v1"
    assert request.settings.every_seed == [0, 1, 2]
    # Metrics of spans stand beside those asked for.
    assert request.settings.wanted_metrics[-3:] == ["seq_logprob_diff", "seq_p_drop", "seq_kl_mean"]


def test_conditions_override_what_they_share(tmp_path):
    conditions = [*CONDITIONS[:2]]
    conditions[1] = {**conditions[1], "seeds": [4], "battery_overrides": {"layers": [1]}}
    config = read_config(put_config(tmp_path, "h5", PAIRS, conditions=conditions))
    facts, neg = config.requests
    assert [each.tag for each in config.requests] == ["facts", "neg"]
    assert facts.settings.dataset.clean_field == "clean"
    assert neg.settings.dataset.id == "negation_single_token_v1"
    assert (facts.settings.every_seed, neg.settings.every_seed) == ([0, 1, 2], [4])
    assert isinstance(neg.battery, HeadsPairZero) and neg.battery.layers == [1]
    assert isinstance(facts.battery, HeadsPairZero) and facts.battery.layers == [0]


def test_verify_slice_may_stand_beside_shared(tmp_path):
    path = put_config(tmp_path, "h1", HEADS, conditions=CONDITIONS)
    content = json.loads(path.read_text()) | {"verify_slice": {"n_examples": 32, "device": "cpu"}}
    put_json(path, content)
    assert all(each.settings.verify_slice for each in read_config(path).requests)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"metric": ["logit_diff"]}, "metric: there is no such key; did you mean 'metrics'?"),
        ({"metrics": ["logit_dif"]}, "there is no metric 'logit_dif'; did you mean 'logit_diff'?"),
        ({"device": "tpu"}, "device: Input should be 'auto', 'mps', 'cpu' or 'cuda', not \"tpu\""),
        ({"seeds": []}, "seeds: List should have at least 1 item"),
        ({"seed": 3}, "seed and seeds are both given"),
        ({"model": {"nane": "gpt2"}}, "model.nane: there is no such key; did you mean 'name'?"),
        ({"dataset": {"id": "../x", "split": "train"}}, "dataset.id: "),
        ({"dataset": {"id": "x", "split": "dev"}}, "dataset.split: Input should be 'train', 'val'"),
    ],
)
def test_what_is_wrong_is_said_in_a_line_with_file_and_key(tmp_path, changed, said):
    path = put_config(tmp_path, "h1", HEADS, **changed)
    lines = refused(path)
    assert lines[0].startswith(f"{path}: ") and any(said in line for line in lines)


def test_what_all_conditions_share_is_said_once(tmp_path):
    path = put_config(tmp_path, "h1", HEADS, conditions=CONDITIONS, metrics=["kl"])
    assert refused(path) == [
        f"{path}: metrics: there is no metric 'kl'; did you mean 'kl_div'?",
    ]
    conditions = [CONDITIONS[0], {**CONDITIONS[1], "device": "tpu"}]
    (line,) = refused(put_config(tmp_path, "h1", HEADS, conditions=conditions))
    assert "condition neg: device" in line


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda top: top.pop("shared"), "shared: must be an object"),
        (lambda top: top.update(conditions=[]), "conditions: must be a list"),
        (lambda top: top.update(run_name="../x"), "run_name: '../x' cannot name a folder"),
        (lambda top: top.update(condition=[]), "condition: there is no such key; did you mean 'co"),
        (lambda top: top["conditions"][1].update(tag="facts"), "'facts' is given twice"),
        (lambda top: top["conditions"][0].update(tga="x"), "conditions[0].tga: there is no such"),
        (lambda top: top["shared"].update(devise="x"), "shared.devise: there is no such key; did"),
    ],
)
def test_a_crossed_config_is_refused_in_one_line(tmp_path, change, said):
    path = put_config(tmp_path, "h1", HEADS, conditions=CONDITIONS)
    content = json.loads(path.read_text())
    change(content)
    (line,) = refused(put_json(path, content))
    assert line.startswith(f"{path}: ") and said in line


def test_the_root_is_found_or_given(tmp_path, monkeypatch):
    path = put_config(tmp_path / "repository", "h1", HEADS)
    elsewhere = put_json(tmp_path / "other" / "mine.json", json.loads(path.read_text()))
    assert "no such file; --root names the folder of lab/" in refused(elsewhere)[0]
    assert read_config(elsewhere, tmp_path / "repository").root == tmp_path / "repository"
    monkeypatch.chdir(tmp_path / "repository")
    assert read_config(elsewhere).root == tmp_path / "repository"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "line 1: not JSON"),
        ("[]", "must be a JSON object, not list"),
        ('{"run_name": "a", "run_name": "b"}', "key 'run_name' occurs twice"),
        ('{"run_name": NaN}', "not JSON"),
    ],
)
def test_a_file_that_is_no_config_is_refused(tmp_path, text, said):
    path = tmp_path / "run.json"
    path.write_text(text)
    (line,) = refused(path)
    assert line.startswith(str(path)) and said in line
    assert "no such file" in refused(tmp_path / "none.json")[0]
    assert settings()["device"] == "cpu"


def test_one_seed_may_be_given_as_seed(tmp_path):
    path = put_config(tmp_path, "h1", HEADS, seed=4)
    content = json.loads(path.read_text())
    del content["seeds"]
    assert read_config(put_json(path, content)).requests[0].settings.every_seed == [4]
    del content["seed"]
    assert read_config(put_json(path, content)).requests[0].settings.every_seed == [0]
