"""What benchmarks write, the table of it, and the harness; nothing is timed here.

Run: pytest tests/test_benchmarks.py
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import __main__ as harness
from benchmarks import loops, peers, record, reliability, shapes, timing
from benchmarks.attacks import ATTACKS
from benchmarks.record import BenchmarkError, Figure, Recording, Result, Target, history, table
from tinyablation.models.devices import Hardware

ROOT = Path(__file__).parent.parent
CPU = {"kind": "cpu", "name": "Some CPU", "usable_cores": 2, "total_memory": 8 * 10**9}
NO_GPU = Hardware(0, False, "2.13.0+cpu")
GPU = {"kind": "cuda", "name": "Some GPU", "total_memory": 80 * 10**9}


def result(day=1, devices=(CPU,), **figure):
    given = {"what": "a thing", "value": 2.0, "unit": "s"} | figure
    return Result(
        finished=f"2026-11-{day:02}T12:00:00+00:00",
        environment={"devices": list(devices)},
        figures=(Figure(**given),),
    )


# --- figures -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "standing"),
    [
        (None, ""),
        ({"of": "figure", "at_most": 2.0}, "met"),
        ({"of": "figure", "at_most": 1.6}, "missed by 25%"),
        ({"of": "figure", "at_least": 2.5}, "missed by 20%"),
        ({"of": "ratio", "at_least": 0.5}, "met"),
        ({"of": "ratio", "at_least": 1.0}, "missed by 50%"),
    ],
)
def test_a_target_is_met_or_missed_by_a_share_of_it(target, standing):
    figure = Figure(
        what="a thing",
        value=2.0,
        unit="s",
        peer="another",
        peer_value=4.0,
        ratio=0.5,
        target=target,
    )
    assert figure.standing == standing


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"peer": "another"}, "a name, a figure and a ratio"),
        ({"ratio": 2.0}, "a name, a figure and a ratio"),
        ({"value": float("nan")}, "finite"),
        ({"target": Target(of="ratio", at_most=1.0)}, "needs a peer"),
        ({"goal": 2.0}, "Extra inputs"),
    ],
)
def test_figures_that_are_not_whole_are_refused(change, complaint):
    with pytest.raises(ValueError, match=complaint):
        Figure(**({"what": "a thing", "value": 2.0, "unit": "s"} | change))


@pytest.mark.parametrize("bounds", [{}, {"at_least": 1.0, "at_most": 2.0}])
def test_a_target_has_one_bound(bounds):
    with pytest.raises(ValueError, match="one bound"):
        Target(of="figure", **bounds)


# --- recordings and histories --------------------------------------------------------------------


def test_a_recording_is_added_to_the_history(tmp_path, capsys):
    for value in (4.0, 2.0):
        recording = Recording("thing", tmp_path)
        recording.add("slowness", value, "s", "the plain way", 8.0, faster=True, at_least=3.0)
        recording.add("size", 900.0, "MB", "one", 300.0, at_most=2.0)
        recording.add("length", 3.0, "s", "another", 1.0, of="figure", at_most=3.0)
        recording.write({"runs": [1, 2]})
    first, second = history(tmp_path / "thing.json")
    assert [figure.ratio for figure in first.figures] == [2.0, 3.0, 3.0]
    assert [figure.standing for figure in first.figures] == [
        "missed by 33%",
        "missed by 50%",
        "met",
    ]
    assert [figure.standing for figure in second.figures] == ["met", "missed by 50%", "met"]
    assert second.details == {"runs": [1, 2]} and second.command.startswith("python -m benchmarks.")
    said = capsys.readouterr().out
    assert "2x faster" in said and "missed by 33%" in said and "thing.json" in said


def test_the_environment_names_hardware_versions_threads_and_load(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    found = record.environment()
    assert found["devices"][0]["kind"] == "cpu" and found["devices"][0]["total_memory"] > 0
    assert found["versions"]["torch"] and found["threads"]["OMP_NUM_THREADS"] == "3"
    assert found["load_average"] == pytest.approx(record.load_average(), abs=5)
    json.dumps(found, allow_nan=False)


def test_histories_that_cannot_be_used_are_refused_before_anything_is_measured(tmp_path):
    path = tmp_path / "thing.json"
    assert history(path) == []
    for text, complaint in (
        ("{", "cannot be read"),
        ('{"benchmark": "thing", "ratio": 2}', "no history"),
        ('{"benchmark": "thing", "results": [{}]}', "field 'finished'"),
    ):
        path.write_text(text)
        with pytest.raises(BenchmarkError, match=complaint):
            Recording("thing", tmp_path)


def test_results_of_another_machine_are_taken_in_once(tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    record.keep(here / "thing.json", "thing", [result(2)])
    record.keep(there / "thing.json", "thing", [result(3, [CPU, GPU]), result(2), result(1)])
    assert record.take_in(there, here) == 2
    assert record.take_in(there, here) == 0
    assert [each.finished[8:10] for each in history(here / "thing.json")] == ["01", "02", "03"]


# --- the table -----------------------------------------------------------------------------------


def test_the_table_has_a_line_a_figure_under_its_machine():
    peer = {"peer": "plain loop", "peer_value": 16.0, "ratio": 8.0, "faster": True}
    target = {"of": "ratio", "at_least": 10.0}
    text = table(
        [
            ("one", result(1, **peer, target=target)),
            ("two", result(1, [CPU, GPU], value=12345.0, unit="MB")),
            ("three", "did not run: exit status 1"),
        ]
    )
    lines = text.splitlines()
    assert lines[1] == "Some CPU, 2 cores, 8.0 GB, 2026-11-01"
    assert re.split(r" {2,}", lines[4]) == [
        *("one", "a thing", "2 s", "plain loop: 16 s", "8x faster", ">= 10x", "missed by 20%")
    ]
    assert lines[6] == "Some GPU + Some CPU, 2 cores, 8.0 GB, 2026-11-01"
    assert re.split(r" {2,}", lines[9]) == ["two", "a thing", "12,345 MB"]
    assert lines[-1].split("  ")[0] == "three" and lines[-1].endswith("exit status 1")


# --- the harness ---------------------------------------------------------------------------------


def test_the_list_has_every_benchmark_and_nothing_else(capsys):
    assert harness.main(["--list"]) == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert {
        *("engine", "gpu", "memory", "peers", "startup", "screening", "workers", "reliability")
    } <= set(listed)
    assert not {"record", "timing", "__main__"} & set(listed)
    assert all(harness.benchmarks().values()), "a benchmark does not say what it compares"
    readme = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    assert [name for name in listed if f"| `{name}` |" not in readme] == []


def test_an_unknown_benchmark_is_refused_with_the_nearest(capsys):
    with pytest.raises(SystemExit):
        harness.main(["--only", "startpu"])
    assert "did you mean 'startup'?" in capsys.readouterr().err


def test_the_results_that_are_kept_can_be_read():
    for path in (ROOT / "benchmarks" / "results").glob("*.json"):
        assert history(path), path
        assert path.stem in harness.benchmarks()


def test_what_is_kept_is_shown_by_machine(tmp_path, capsys):
    older, newer = result(1, value=3.0), result(2, value=5.0)
    record.keep(
        tmp_path / "memory.json", "memory", [older, newer, result(1, [CPU, GPU], value=7.0)]
    )
    assert harness.main(["--show", "--only", "memory", "--results", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "5 s" in shown and "7 s" in shown and "3 s" not in shown
    harness.main(["--show", "--only", "workers", "--results", str(tmp_path)])
    assert "workers" in (said := capsys.readouterr().out) and record.UNMEASURED in said


def test_a_benchmark_that_fails_is_a_line_and_an_exit_status(tmp_path, capsys, monkeypatch):
    def run(command, **_):
        assert command[1:3] == ["-m", "benchmarks.memory"]
        return subprocess.CompletedProcess(command, 3)

    monkeypatch.setattr(harness.subprocess, "run", run)
    assert harness.main(["--only", "memory", "--results", str(tmp_path)]) == 1
    assert "did not run: exit status 3" in capsys.readouterr().out


def test_a_benchmark_that_wrote_is_in_the_table(tmp_path, capsys, monkeypatch):
    def run(command, **_):
        record.keep(tmp_path / "memory.json", "memory", [result(4)])
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(harness.subprocess, "run", run)
    assert harness.main(["--only", "memory", "--results", str(tmp_path)]) == 0
    assert "2026-11-04" in capsys.readouterr().out
    # Nothing new was written the second time, since the history has one result as before.
    assert harness.main(["--only", "memory", "--results", str(tmp_path)]) == 1
    assert "wrote no result" in capsys.readouterr().out


def test_every_benchmark_has_help_without_measuring():
    for name in ("gpu", "memory", "peers", "reliability", "screening", "startup", "workers"):
        done = subprocess.run(
            [sys.executable, "-m", f"benchmarks.{name}", "--help"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        assert "--results DIR" in done.stdout


def test_what_needs_a_gpu_is_left_out_where_there_is_none(tmp_path, capsys, monkeypatch):
    ran = []

    def run(command, **_):
        name = command[2].rpartition(".")[2]
        ran.append(name)
        record.keep(tmp_path / f"{name}.json", name, [result(4)])
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(harness.subprocess, "run", run)
    monkeypatch.setattr(harness, "look", lambda: NO_GPU)
    assert harness.main(["--results", str(tmp_path)]) == 0
    assert "left out: no CUDA device" in capsys.readouterr().out
    assert set(harness.benchmarks()) - set(ran) == {"gpu"}
    # By name it is run, and says itself what it lacks.
    (tmp_path / "gpu.json").unlink(missing_ok=True)
    assert harness.main(["--only", "gpu", "--results", str(tmp_path)]) == 0 and ran[-1] == "gpu"
    monkeypatch.setattr(harness, "look", lambda: Hardware(1, False, "2.13.0+cu128"))
    ran.clear()
    harness.main(["--results", str(tmp_path)])
    assert "gpu" in ran


# --- reliability ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ATTACKS)
def test_the_attacks_that_are_counted_are_tests(kind):
    for name in ATTACKS[kind]:
        file, _, test = name.partition("::")
        found = re.findall(r"^def (test_\w+)", (ROOT / file).read_text(encoding="utf-8"), re.M)
        assert test in found if test else found, name
    assert len(set(ATTACKS[kind])) == len(ATTACKS[kind])


@pytest.mark.slow
def test_an_attack_that_gets_through_ends_the_benchmark(tmp_path):
    test = tmp_path / "test_some.py"
    test.write_text(
        "import pytest\n"
        "@pytest.mark.parametrize('n', range(3))\ndef test_a(n): pass\n"
        "def test_b(): pytest.skip('not here')\n"
        "def test_c(): assert False\n"
    )
    assert reliability.passed([f"{test}::test_a", f"{test}::test_b"], tmp_path) == 3
    with pytest.raises(BenchmarkError, match=r"test_some.py::test_a ...: exit status 1"):
        reliability.passed([f"{test}::test_a", f"{test}::test_c"], tmp_path)


def test_a_damaged_file_that_a_reader_does_not_take_ends_the_benchmark(monkeypatch):
    from tests import readers

    good = readers.Reader("given.json", b'{"a": 1}', lambda path: path.read_bytes())
    monkeypatch.setattr(readers, "readers", lambda: {"one": good})
    assert reliability.damaged_files(5, seed=0) == {"read": 5}
    refusing = good._replace(read=lambda path: json.loads(path.read_bytes()))
    monkeypatch.setattr(readers, "readers", lambda: {"one": refusing})
    with pytest.raises(BenchmarkError, match="one: a damaged file of .* bytes: JSONDecodeError"):
        reliability.damaged_files(20, seed=0)


def test_the_page_has_the_figures_of_the_last_run():
    page = (ROOT / "docs" / "reliability-and-speed.md").read_text(encoding="utf-8")
    table = page.partition("\n## Speed\n")[0]
    last = history(ROOT / "benchmarks" / "results" / "reliability.json")[-1]
    for figure in last.figures:
        if figure.value:
            assert re.search(rf"\b{figure.value:,.0f}\b", table), figure.what
    for count in (*last.details["lines"].values(), *last.details["files"].values()):
        assert re.search(rf"\b{count:,}\b", table), count
    for kind in ATTACKS:
        (row,) = [line for line in table.splitlines() if line.startswith(f"| {kind}")]
        (figure,) = [each for each in last.figures if each.what == kind]
        assert f"| {figure.value:,.0f} attempts |" in row


# --- peers ---------------------------------------------------------------------------------------


def test_heads_are_as_deep_on_average_as_all_of_them():
    every = [(layer, head) for layer in range(30) for head in range(9)]
    assert peers.spread_heads(270, 30, 9) == every
    some = peers.spread_heads(12, 30, 9)
    assert [layer for layer, _ in some] == [1, 3, 6, 8, 11, 13, 16, 18, 21, 23, 26, 28]
    assert peers.spread_heads(1, 2, 4) == [(1, 0)]


@pytest.fixture
def toy():
    """A random model of two layers, and some of the prompts that it would be measured on."""
    small = shapes.Shape(2, 2, 2, 16, 32, 1500, False)
    loaded, prompts = peers.subject(peers.RANDOM, "facts", 12, small)
    assert loaded.facts.n_layers == 2 and len({len(prompt.ids) for prompt in prompts}) > 1
    return loaded, prompts


def test_every_peer_zeroes_the_same_heads(tmp_path, toy):
    loaded, prompts = toy
    found = peers.compare(loaded, prompts, [(0, 1), (1, 0)], batch=4, repetitions=2)
    assert found["prompts"] == 12 and found["shared_prefix_ratio"] > 1
    assert {peers.ENGINE, peers.PLAIN, peers.BRIDGE} <= set(found["sides"])
    for side in found["sides"].values():
        # Noise, where the smallest of the effects is some hundred times as large.
        assert side["largest_difference"] < found["largest_effect"] / 100
        assert len(side["runs"]) == 2 and side["cpu_s"] > 0
    recording = Recording("peers", tmp_path)
    peers.add(recording, "toy", found, peers.PRETRAINED)
    result = recording.write({})
    seconds = [figure for figure in result.figures if figure.unit == "s"]
    assert [figure.peer for figure in seconds][:2] == [peers.PLAIN, peers.BRIDGE]
    bounds = [figure.target for figure in result.figures if figure.target is not None]
    assert bounds == [Target(of="ratio", at_least=peers.RATIO)]


def test_a_peer_that_zeroes_another_head_ends_the_benchmark(monkeypatch, toy):
    loaded, prompts = toy
    right = peers.bridge_pass

    def wrong(bridge):
        run = right(bridge)
        return lambda head, ids: run(head and (head[0], 1 - head[1]), ids)

    monkeypatch.setattr(peers, "bridge_pass", wrong)
    monkeypatch.setattr(peers, "AGREEMENT", 1e-5)  # random weights of this size do little
    with pytest.raises(BenchmarkError, match="TransformerBridge loop and plain .* differ by"):
        peers.compare(loaded, prompts, [(0, 1)], batch=4, repetitions=1)


def test_prompts_of_one_length_pass_together():
    import torch

    from tinyablation.corpora.tokenisation import Prompt

    given = [Prompt(tuple(range(length)), 0, 1) for length in (3, 2, 3, 3, 2)]
    seen = []

    def run(head, ids):
        seen.append((head, tuple(ids.shape)))
        return torch.stack([ids[:, 1].float(), ids[:, -1].float()], dim=1)

    found = loops.loop_by_length(run, given, [None, (0, 1)], 2)
    assert seen[:3] == [(None, (2, 3)), (None, (1, 3)), (None, (2, 2))] and len(seen) == 6
    assert found.tolist() == [[-1, 0, -1, -1, 0]] * 2


def test_without_nnsight_it_is_left_out(monkeypatch, toy):
    loaded, _ = toy
    monkeypatch.setattr(peers, "nnsight_version", lambda: peers.NOT_INSTALLED)
    assert list(peers.sides_of(loaded, 4)) == [peers.ENGINE, peers.PLAIN, peers.BRIDGE]


def test_the_page_has_the_ratios_to_the_peers_or_says_that_there_are_none():
    page = (ROOT / "docs" / "reliability-and-speed.md").read_text(encoding="utf-8")
    rows = {
        peer: [line for line in page.splitlines() if line.startswith(f"| {peer}")]
        for peer in peers.PEERS
    }
    kept = history(ROOT / "benchmarks" / "results" / "peers.json")
    for peer, lines in rows.items():
        assert len(lines) == 1, peer
        of = [each for each in (kept[-1].figures if kept else ()) if each.peer == peer]
        ratios = [figure.ratio for figure in of if figure.unit == "s"]
        for ratio in ratios:
            assert f"{ratio:.1f}" in lines[0], peer
        assert ("not recorded yet" in lines[0]) == (not ratios), peer


# --- timing --------------------------------------------------------------------------------------


def test_a_command_is_kept_without_the_place_of_its_results():
    assert record._command("gpu", ["--results", "/home/me/out", "--only", "small"]) == (
        "python -m benchmarks.gpu --only small"
    )
    assert record._command("engine", ["--layers", "1", "2", "--results=x"]) == (
        "python -m benchmarks.engine --layers 1 2"
    )


def test_commands_are_timed_with_their_processor_seconds():
    work = "sum(range(10**7))"
    found = timing.timed(["-c", work])
    assert found.wall > 0 and found.cpu > 0
    assert timing.timed(["-c", "raise SystemExit(5)"], expected=(5,)).wall > 0
    with pytest.raises(BenchmarkError, match=r"(?s)exit status 1.*no such thing"):
        timing.timed(["-c", "raise ValueError('no such thing')"])


def test_commands_run_as_a_user_runs_them(monkeypatch):
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    plain = timing.plain_environment()
    assert not {"PYTHONDONTWRITEBYTECODE", "OMP_NUM_THREADS"} & set(plain)
    assert timing.plain_environment(2)["OMP_NUM_THREADS"] == "2"


def test_several_runs_have_a_best_and_a_median():
    runs = [timing.Seconds(wall, 2 * wall) for wall in (3.0, 1.0, 2.0)]
    assert timing.summary(runs) == {
        "wall": {"best": 1.0, "median": 2.0, "all": [3.0, 1.0, 2.0]},
        "cpu": {"best": 2.0, "median": 4.0, "all": [6.0, 2.0, 4.0]},
    }
