"""Run: pytest tests/plugin/test_report_guard.py"""

import json

import pytest

from tinyablation.plugin.report_guard import Ledger, not_plain

pytest_plugins = ["pytester"]


def test_plain_values_are_exact_builtin_types():
    numpy = pytest.importorskip("numpy")
    assert list(not_plain({"a": [1, 2.0, "x", None, True, (1,)]}, "p")) == []
    assert list(not_plain({"a": [numpy.float64(1)]}, "p")) == ["p.a[0] is numpy.float64"]
    assert list(not_plain({1: 2}, "p")) == ["p has the key 1, not a string"]
    assert list(not_plain(b"x", "p")) == ["p is builtins.bytes"]
    assert list(not_plain(["Δ", "\ud800"], "p")) == ["p[1] has half a character (a lone surrogate)"]


class Report:
    def __init__(self, nodeid, when="call", outcome="passed"):
        self.nodeid, self.when, self.passed = nodeid, when, outcome == "passed"


def reported(*reports):
    ledger = Ledger()
    ledger.expected.update(["a", "b"])
    for report in reports:
        ledger.pytest_runtest_logreport(report)
    return ledger


def whole(nodeid):
    return [Report(nodeid, when) for when in ("setup", "call", "teardown")]


def test_ledger_tells_lost_and_double_reports():
    assert reported(*whole("a"), *whole("b")).complete
    assert reported(*whole("a")).missing() == ["b"]
    # A call whose report was lost, though set-up and teardown arrived.
    assert reported(*whole("a"), Report("b", "setup"), Report("b", "teardown")).missing() == ["b"]
    skipped = [Report("b", "setup", "skipped"), Report("b", "teardown")]
    assert reported(*whole("a"), *skipped).complete
    crashed = reported(*whole("a"), Report("b", "setup"), Report("b", "???", "failed"))
    assert crashed.complete and not crashed.surplus()
    assert reported(*whole("a"), *whole("b"), *whole("a")).surplus() == ["a"]


NUMPY = """
import numpy, pytest
def test_fails(record_property):
    record_property("effect", numpy.float64(.1))
    assert False, "the real failure"
def test_passes(record_property):
    record_property("effect", numpy.float64(.1))
def test_extras(extras):
    extras.append({"content": b"png", "format_type": "image"})
@pytest.fixture
def late(record_property):
    yield
    record_property("late", {1, 2})
def test_late(late):
    pass
def test_good(record_property):
    record_property("effect", .1)
"""


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_numpy_scalar_fails_its_test_and_loses_nothing(suite, workers):
    suite.write("tests/test_numpy.py", NUMPY)
    result = suite.run("tests", "-n", workers, "--html", "page.html")
    result.assert_outcomes(passed=2, failed=3, errors=1)
    assert result.ret == 1
    text = result.stdout.str()
    assert "the real failure" in text and "reports lost" not in text
    assert "property effect is numpy.float64: xdist would lose this test's report" in text
    assert "extra 0.content is builtins.bytes" in text
    assert "property late is builtins.set" in text


HALVES = """
import pytest
# A file name of other bytes than UTF-8, as Python has it.
def test_fails():
    raise OSError("caf\\udce9")
def test_skips():
    pytest.skip("caf\\udce9")
def test_expected():
    pytest.xfail("caf\\udce9")
"""


def test_text_that_is_not_utf8_loses_no_report(suite):
    suite.write("tests/test_halves.py", HALVES)
    result = suite.run("tests", "-n", "1", "-rsx")
    result.assert_outcomes(failed=1, skipped=1, xfailed=1)
    text = result.stdout.str()
    assert text.count("caf\\udce9") >= 3 and "reports lost" not in text


DROP = """
import pytest
@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session):
    kept = [item for item in session.items if "lost" not in item.nodeid]
    for index, item in enumerate(kept):
        following = kept[index + 1] if index + 1 < len(kept) else None
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
    return True
"""


def test_a_test_that_never_reports_fails_the_session(suite):
    suite.write("tests/conftest.py", DROP)
    suite.write("tests/test_it.py", "def test_lost(): pass\ndef test_kept(): pass\n")
    result = suite.run("tests")
    result.assert_outcomes(passed=1)
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        ["*reports lost: this session counts as failed*", "1 selected but never reported:"]
    )
    result.stdout.fnmatch_lines(["*tests/test_it.py::test_lost"])


def test_a_report_lost_between_processes_fails_the_session(suite):
    # Put on the report after the guard has looked: the loss as pytest and xdist have it.
    suite.write(
        "tests/conftest.py",
        "import numpy, pytest\n"
        "@pytest.hookimpl(wrapper=True, tryfirst=True)\n"
        "def pytest_runtest_makereport(item):\n"
        "    report = yield\n"
        "    if 'lost' in item.nodeid and report.when == 'call':\n"
        "        report.user_properties.append(('effect', numpy.float64(1)))\n"
        "    return report\n",
    )
    suite.write("tests/test_it.py", "def test_lost(): assert False\ndef test_kept(): pass\n")
    result = suite.run("tests", "-n", "2")
    assert result.ret != 0
    result.stdout.fnmatch_lines(["1 selected but never reported:", "*test_lost"])


@pytest.mark.parametrize("workers", ["0", "2"])
def test_an_intended_stop_is_no_loss(suite, workers):
    suite.claims(
        "test_heads",
        suite.claim("H1.1", "test_stop", "assert False"),
        suite.claim("H1.2", "test_more", "import time; time.sleep(.2); judge(verdict())"),
    )
    result = suite.run("claims", "-x", "-n", workers)
    text = result.stdout.str()
    assert "reports lost" not in text
    assert "selected tests did not run: stopping after" in text
    content = json.loads((suite.root / "reports" / "records.json").read_text())
    assert content["session"]["complete"] is False


def test_a_crashed_worker_is_reported_once_and_loses_nothing(suite):
    body = "os.kill(os.getpid(), signal.SIGKILL) if condition == 'logic' else judge(verdict())"
    suite.claims("test_heads", suite.claim(body=body))
    suite.models("tiny-gpt2", "tiny-llama")
    result = suite.accept("-n", "2")
    text = result.stdout.str()
    result.assert_outcomes(passed=6, failed=2)
    assert "reports lost" not in text
    records = suite.records()
    assert len(records) == 8
    crashed = records["test_it_holds[tiny-gpt2-logic]"]
    assert (crashed["verdict"], crashed["outcome"]) == ("error", "error")
    assert crashed["reason"] == "the test did not finish"


TORN_DOWN = """
import os, signal, pytest
@pytest.fixture
def released(condition):
    yield
    if condition == "logic":
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_worker_lost_between_verdict_and_the_end_of_its_test_leaves_no_verdict(suite):
    arguments = "model, condition, released, judge, verdict"
    suite.write("claims/test_heads.py", TORN_DOWN + suite.claim(arguments=arguments))
    suite.models("tiny-gpt2")
    result = suite.accept("-n", "2")
    assert result.ret != 0
    records = suite.records()
    assert len(records) == 4
    crashed = records.pop("test_it_holds[tiny-gpt2-logic]")
    assert (crashed["verdict"], crashed["outcome"]) == ("error", "error")
    assert crashed["reason"] == "the worker was lost after the verdict, before the test ended"
    assert {each["verdict"] for each in records.values()} == {"supported"}


MEASURED = """
import os, signal, pytest
@pytest.fixture
def measured(condition):
    if condition == "logic":
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_worker_lost_amid_a_measurement_leaves_the_session_incomplete(suite):
    arguments = "model, condition, measured, judge, verdict"
    suite.write("claims/test_heads.py", MEASURED + suite.claim(arguments=arguments))
    suite.models("tiny-gpt2")
    result = suite.accept("-n", "2")
    result.assert_outcomes(passed=3, failed=1)
    assert "claims.html (incomplete)" in result.stdout.str()
    assert len(suite.records()) == 3


def test_collect_only_has_no_ledger(suite):
    suite.claims("test_heads", suite.claim())
    result = suite.run("claims", "--collect-only", "-q")
    assert result.ret == 0
    assert "reports lost" not in result.stdout.str()
    assert not (suite.root / "reports").exists()
