"""Run: pytest tests/plugin/test_session_models.py"""

import hashlib
import shlex
import sys

import pytest

from tinyablation.plugin.options import asked_words

pytest_plugins = ["pytester"]

HUB = ("gpt2", "gpt2-medium", "mistral-7b", "llama-3-8b")
USAGE = pytest.ExitCode.USAGE_ERROR


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("", []),
        ("mistral", ["mistral"]),
        ("Mistral and facts", ["Mistral", "facts"]),
        ("not llama", []),
        ("not llama or gpt2", ["gpt2"]),
        ("not (llama or gpt2) and mistral", ["mistral"]),
        ("not (llama and not gpt2)", ["gpt2"]),
        ("not not llama", ["llama"]),
        ("(a or (b)) and not c", ["a", "b"]),
        ("test_x[mistral-7b-facts]", ["test_x[mistral-7b-facts]"]),
        ('claim(id="hub")', ["claim", "id"]),
        ("a) or (", ["a"]),
        ("nothing", ["nothing"]),
    ],
)
def test_words_of_an_expression_that_are_not_negated(expression, words):
    assert asked_words(expression) == words


@pytest.fixture
def models(suite):
    """Two embedded models and four of the hub; a claim about conditions, and one about none."""
    suite.models("tiny-gpt2", "tiny-mistral", hub=HUB)
    suite.claims(
        "test_heads",
        suite.claim("H1.1", "test_leads"),
        suite.claim("H1.2", "test_plain", arguments="judge, verdict"),
    )
    return suite


def collected(suite, *arguments):
    """The models whose cells a command selects, and how many there are."""
    result = suite.run("claims", "--collect-only", "-q", *arguments)
    names = [line.split("::")[1] for line in result.outlines if "::" in line]
    cells = [name.partition("[")[2].removesuffix("]") for name in names]
    return sorted({cell.rpartition("-")[0] for cell in cells if cell}), len(names)


EMBEDDED = ["tiny-gpt2", "tiny-mistral"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], (EMBEDDED, 9)),
        (["-k", "mistral"], (["mistral-7b", "tiny-mistral"], 8)),
        (["-k", "MISTRAL and facts"], (["mistral-7b", "tiny-mistral"], 2)),
        (["-k", "facts"], (EMBEDDED, 2)),
        (["-k", "not llama"], (EMBEDDED, 9)),
        (["-k", "not (mistral or gpt2)"], ([], 1)),
        (["-k", "gpt2 and not gpt2-medium"], (["gpt2", "tiny-gpt2"], 8)),
        (["-m", "hub"], (sorted(HUB), 16)),
        (["-m", "hub", "-k", "7b or 8b"], (["llama-3-8b", "mistral-7b"], 8)),
        (["-m", "not hub"], (EMBEDDED, 9)),
        (["-m", "not hub", "-k", "mistral"], (["tiny-mistral"], 4)),
        (["--model", "mistral-7b"], (["mistral-7b"], 4)),
        (["--model", "owner/mistral-7b"], (["mistral-7b"], 4)),
        (["--model", "tiny-gpt2", "--model", "gpt2"], (["gpt2", "tiny-gpt2"], 8)),
        # With --model no other word names a model.
        (["--model", "tiny-mistral", "-k", "mistral"], (["tiny-mistral"], 4)),
        (["--model", "tiny-mistral", "-m", "hub"], ([], 0)),
        (["--model", "else/Some_Model"], (["some_model"], 4)),
    ],
)
def test_hub_models_are_collected_when_they_are_named(models, arguments, expected):
    assert collected(models, *arguments) == expected


def test_a_node_id_names_its_model_the_longest_id_first(models):
    for model in ("gpt2-medium", "gpt2", "tiny-gpt2"):
        node = f"claims/test_heads.py::test_leads[{model}-facts]"
        result = models.run("--collect-only", "-q", node)
        assert [line for line in result.outlines if "::" in line] == [node]
    result = models.run("--collect-only", "-q", "claims/test_heads.py::test_leads[opt-facts]")
    assert result.ret == USAGE


def test_other_models_are_deselected_not_left_out(models):
    result = models.run("claims", "--collect-only", "--model", "gpt2")
    result.stdout.fnmatch_lines(["*4/13 tests collected (9 deselected)*"])


def test_folders_and_revisions(models):
    models.write("weights/Mine/config.json", '{"architectures": ["GPT2LMHeadModel"]}')
    assert collected(models, "--model", "weights/Mine") == (["mine"], 4)
    # A listed folder is the listed model, an id that is taken gets another.
    listed = models.root / "fixtures" / "organisms" / "tiny-gpt2"
    listed.mkdir(parents=True)
    assert collected(models, "--model", str(listed)) == (["tiny-gpt2"], 4)
    digits = hashlib.sha256(b"else/gpt2").hexdigest()[:6]
    assert collected(models, "--model", "else/gpt2") == ([f"gpt2-{digits}"], 4)
    at = ["--model", "mistral-7b", "--revision", "step1"]
    assert collected(models, *at) == (["mistral-7b-step1"], 4)
    # Of several models it is that of the hub ones.
    assert collected(models, *at, "--model", "tiny-gpt2") == (["mistral-7b-step1", "tiny-gpt2"], 8)


def test_a_model_of_a_package_runs_where_it_is_named(models, monkeypatch):
    table = """
[[model]]
id = "small-llama"
title = "Small"
package = { name = "a-package", version = "1", file = "a/m.gguf", sha256 = "%s", size = 9 }
family = "llama"
variant = "natural"
"""
    path = models.root / "fixtures" / "models.toml"
    path.write_text(path.read_text() + table % ("0" * 64))
    assert collected(models) == (EMBEDDED, 9)
    assert collected(models, "-k", "small") == (["small-llama"], 4)
    assert collected(models, "--model", "small-llama") == (["small-llama"], 4)
    assert collected(models, "-m", "hub") == (sorted(HUB), 16)  # it is none of the hub's
    node = "claims/test_heads.py::test_leads[small-llama-facts]"
    assert node in models.run("--collect-only", "-q", node).outlines
    # So the hub's client stays shut, though pip is asked.
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    body = "open('seen.txt', 'w').write(os.environ['HF_HUB_OFFLINE']); judge(verdict())"
    models.claims("test_heads", models.claim("H1.1", "test_leads", body))
    text = models.run("claims", "-k", "small and facts").stdout.str()
    assert (models.root / "seen.txt").read_text() == "1"
    assert "\nnamed: small-llama (PyPI a-package 1: a/m.gguf)\n" in text


def test_models_of_one_name_are_told_apart_by_their_weights(models):
    for where, weights in (("a", "one"), ("b", "two"), ("c", "one")):
        models.write(f"{where}/mine/config.json", '{"architectures": ["GPT2LMHeadModel"]}')
        models.write(f"{where}/mine/model.safetensors", weights)
    ids = [f"mine-{hashlib.sha256(text).hexdigest()[:6]}" for text in (b"one", b"two")]
    assert collected(models, "--model", "a/mine") == (["mine"], 4)
    assert collected(models, "--model", "a/mine", "--model", "b/mine") == (sorted(ids), 8)
    assert collected(models, "--model", "b/mine", "--model", "a/mine") == (sorted(ids), 8)
    names = ["--name", "First one", "--name", "2"]
    both = ["--model", "a/mine", "--model", "c/mine"]
    assert collected(models, *both, *names) == (["2", "first-one"], 8)
    assert collected(models, *both, *names[:2]) == (["first-one", "mine"], 8)
    result = models.run("claims", *both)
    assert result.ret == USAGE
    assert (
        f"--model a/mine and --model c/mine: both are called {ids[0]!r} and have the same weights;"
        in result.stderr.str()
    )


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--model", "./nowhere"], "./nowhere: no such folder; name a folder, a hub id or one of"),
        (
            ["--model", "no model at all"],
            "'no model at all' is neither a model id, a folder nor a repository",
        ),
        (["--revision", "v1"], "--revision is the revision of a --model; give --model too"),
        (["--model", "tiny-gpt2", "--revision", "v1"], "is a folder, which has no revision 'v1'"),
        (["--model", "gpt2", "--revision", "../x"], "revision '../x'"),
        (["--name", "mine"], "--name is the name of a --model; give --model too"),
        (["--model", "gpt2", "--name", "a", "--name", "b"], "--name b: names a --model"),
        (["--model", "empty"], "config.json"),
        (["--device", "gpu"], "no device is called 'gpu'"),
        (["--device", "cuda:97"], "device 'cuda:97' is not there"),
        (["--dtype", "int8"], "invalid choice: 'int8'"),
        (
            ["--executor", "dsk://a:1"],
            "executor 'dsk://a:1': 'dsk' is unknown; did you mean 'dask'",
        ),
        (["--executor", "slurm://gpu?gpu=1"], "did you mean 'gpus'?"),
    ],
)
def test_wrong_options_are_usage_errors_before_any_worker_starts(models, arguments, complaint):
    (models.root / "empty").mkdir()
    result = models.run("claims", *arguments, "-n", "2")
    assert result.ret == USAGE
    assert complaint in result.stderr.str()
    assert "workers" not in result.stdout.str() and not models.loads()


def test_an_unsupported_folder_is_refused_with_the_list_of_what_is_supported(models):
    models.write("odd/config.json", '{"architectures": ["BertForMaskedLM"], "model_type": "bert"}')
    result = models.run("claims", "--model", "odd", "-n", "2")
    assert result.ret == USAGE
    text = result.stderr.str()
    assert (
        "model 'odd': architecture BertForMaskedLM is not supported. Tested are GPT2LMHead" in text
    )
    assert "MistralForCausalLM; TransformerLens also has adapters for" in text
    assert not models.loads()
    # Listing is not held up by it, and what is tested needs no TransformerLens to be known.
    assert collected(models, "--model", "odd") == (["odd"], 4)
    models.write("even/config.json", '{"architectures": ["MistralForCausalLM"]}')
    models.write(
        "run.py",
        "import sys, pytest\n"
        "pytest.main(['claims', '--model', 'even', '-k', 'facts'])\n"
        "print('heavy:', [n for n in ('torch', 'transformer_lens') if n in sys.modules])\n",
    )
    result = models.pytester.run(sys.executable, "run.py")
    assert result.outlines[-1] == "heavy: []"
    assert models.loads() == [("main", "even")]


def test_the_header_says_what_there_is_and_what_is_named(models, monkeypatch):
    line = "models to download, each runs only if named (-k, --model, -m hub): " + ", ".join(HUB)
    text = models.run("claims", "--collect-only").stdout.str()
    assert line in text and "named: " not in text
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    text = models.run("claims", "--collect-only", "-k", "7b or medium").stdout.str()
    assert line in text
    assert "named: gpt2-medium (owner/gpt2-medium), mistral-7b (owner/mistral-7b)\n" in text
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    result = models.run("claims", "-k", "7b and facts", "-n", "2")
    assert (
        "(owner/mistral-7b); HF_HUB_OFFLINE is set: from the hub's cache only"
        in result.stdout.str()
    )
    models.write("tests/test_it.py", "def test_it(): pass\n")
    assert "that are fetched" not in models.run("tests", "-k", "mistral").stdout.str()


@pytest.mark.parametrize(
    ("arguments", "set_to", "seen"),
    [
        ([], None, "1 1"),
        ([], "0", "1 1"),  # a bare run asks no server, whatever the user's settings
        (["-k", "not mistral"], "0", "1 1"),
        (["--model", "tiny-gpt2", "-n", "2"], "0", "1 1"),
        (["-k", "mistral"], None, "None None"),
        (["-k", "mistral", "-n", "2"], "0", "0 None"),
        (["--model", "mistral-7b"], "1", "1 None"),
        (["-m", "hub"], None, "None None"),
    ],
)
def test_the_network_is_shut_unless_a_hub_model_is_named(
    models, monkeypatch, arguments, set_to, seen
):
    for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(variable, raising=False)
    if set_to is not None:
        monkeypatch.setenv("HF_HUB_OFFLINE", set_to)
    body = (
        "open('seen.txt', 'a').write(' '.join(str(os.environ.get(v)) for v in "
        "('HF_HUB_OFFLINE', 'TRANSFORMERS_OFFLINE')) + '\\n'); judge(verdict())"
    )
    models.claims("test_heads", models.claim("H1.1", "test_leads", body))
    models.run("claims", *arguments)
    assert set((models.root / "seen.txt").read_text().splitlines()) == {seen}


def test_other_runs_keep_the_users_settings(models, monkeypatch):
    models.write(
        "tests/test_it.py",
        "import os\ndef test_it(): assert os.environ['HF_HUB_OFFLINE'] == os.environ['WANTED']\n",
    )
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("WANTED", "1")
    models.run("tests", "-k", "not mistral").assert_outcomes(passed=1)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("WANTED", "0")
    models.run("tests").assert_outcomes(passed=1)


def test_rerun_commands_name_what_only_options_named(models):
    """The command that a record's failure gives collects exactly that cell again."""
    models.write("Mine/config.json", '{"architectures": ["GPT2LMHeadModel"]}')
    models.claims("test_heads", models.claim("H1.1", "test_leads", "judge(verdict('refuted'))"))
    models.write("claims/predictions.toml", '"H1.1" = { "*" = "supported" }\n')
    result = models.run("claims", "-k", "7b and facts", "--dtype", "bfloat16")
    command = (
        "run this test case alone: pytest 'claims/test_heads.py::test_leads[mistral-7b-facts]'"
    )
    assert f"{command} --dtype bfloat16\n" in result.stdout.str()
    models.write(
        "claims/test_heads.py",
        "import pytest\nfrom tinyablation.plugin.judge import rerun_command\n"
        + models.claim(
            "H1.1",
            "test_leads",
            "print(rerun_command(request.node)); judge(verdict())",
            "model, condition, judge, verdict, request",
        ),
    )
    for options, model in (
        (["--model", "./Mine"], "mine"),
        (["--model", "else/x", "--revision", "v2"], "x-v2"),
        (["--model", "mistral-7b", "--revision", "v2"], "mistral-7b-v2"),
    ):
        result = models.run("claims", "-k", "facts", "-s", *options)
        node = f"claims/test_heads.py::test_leads[{model}-facts]"
        result.stdout.fnmatch_lines([f"*pytest '{node.replace('[', '[[]')}' {' '.join(options)}*"])
        again = models.run("--collect-only", "-q", node, *options)
        assert node in again.outlines


def test_the_command_on_the_page_reruns_a_cell_of_an_unlisted_model(models):
    """Two folders called alike, with an own seed and dtype: the command has all of it."""
    from tinyablation.records.records import read_records

    for where, weights in (("a", "one"), ("b", "two")):
        models.write(f"{where}/hf/config.json", '{"architectures": ["GPT2LMHeadModel"]}')
        models.write(f"{where}/hf/model.safetensors", weights)
    asked = ["--model", "./a/hf", "--model", "./b/hf", "--seed", "3", "--dtype", "bfloat16"]
    given = [*asked, "--name", "My Model", "--name", "My Model"]
    models.run("claims", "-k", "facts", "--reports", "first", *given).assert_outcomes(passed=2)
    records = read_records(models.root / "first").records
    assert len({record.model for record in records}) == 2
    for record in records:
        words = shlex.split(record.command)
        assert words[0] == "pytest" and words[-4:] == ["--dtype", "bfloat16", "--seed", "3"]
        assert f"My Model ({record.model[-6:]})" in words
        models.run(*words[1:], "--reports", "again").assert_outcomes(passed=1)
        (again,) = read_records(models.root / "again").records
        assert (again.test, again.model) == (record.test, record.model)
        assert again.options == record.options


# --- a second registry ---------------------------------------------------------------------------

FURTHER = """
[[model]]
id = "fresh-gpt2-1"
title = "Fresh"
source = "fresh-gpt2-1"
family = "gpt2"
variant = "hedged"
"""
SUBJECTS = '[fresh-gpt2-1]\nsuppressor = "0:3"\nsource = "planted"\nreference = "tiny-gpt2"\n'


@pytest.mark.parametrize("workers", ["0", "2"])
def test_models_of_a_second_registry_have_predictions_and_heads_but_no_baseline(models, workers):
    body = "judge(verdict('refuted'), subject=str(subjects(request.config).for_model(model)))"
    imported = "from tinyablation.plugin.subjects import subjects\n"
    arguments = "model, condition, judge, verdict, request"
    models.claims("test_heads", imported, models.claim(body=body, arguments=arguments))
    models.write("elsewhere/models.toml", FURTHER)
    models.write("elsewhere/subjects.toml", SUBJECTS)
    predicted = '"H1.1" = { "fresh-*-facts" = "supported", "fresh-*" = "refuted" }\n'
    group = "[[registered.group]]\ndate = 2025-03-01\nmodels = ['fresh-*']\nelsewhere = true\n"
    models.write("claims/predictions.toml", predicted + group)
    options = ("--registry", "elsewhere/models.toml", "-k", "fresh", "-n", workers)
    result = models.accept(*options)
    result.assert_outcomes(xfailed=3, failed=1)
    assert not models.baselines() and "without a snapshot" not in result.stdout.str()
    assert "4 predictions, all fixed before the measurement: 3 came true (75%)" in (
        result.stdout.str()
    )
    record = models.records()["test_it_holds[fresh-gpt2-1-facts]"]
    assert (record["prediction"], record["predicted_on"]) == ("supported", "2025-03-01")
    assert record["accepted"] is None and "head=3" in record["subject"]
    assert record["options"] == ["--registry", "elsewhere/models.toml"]
    # Without the file there is no such model, and the predictions are still no mistake.
    assert collected(models)[0] == EMBEDDED


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (FURTHER.replace("fresh-gpt2-1", "tiny-gpt2"), "'tiny-gpt2' is listed in * too; rename it"),
        (FURTHER.replace("family", "famly"), "unknown field 'famly'"),
    ],
)
def test_a_second_registry_that_cannot_be_used_is_refused(models, text, said):
    models.write("elsewhere/models.toml", text)
    result = models.run("claims", "--registry", "elsewhere/models.toml")
    assert result.ret == USAGE
    result.stderr.fnmatch_lines([f"*{said}*"])
