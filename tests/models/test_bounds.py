"""Bounds on batches by device: what the rule gives GPUs of common sizes, and that CPUs keep theirs.

Run: pytest tests/models/test_bounds.py
"""

import subprocess
import sys

import pytest

from tinyablation.models import bounds as bounds_module
from tinyablation.models.bounds import SMALLEST, Bounds, bounds_of, bounds_on

GIB = 2**30


def test_a_cpu_and_mps_have_the_smallest_whatever_their_memory() -> None:
    assert Bounds(2**21, 128, 2**24) == SMALLEST
    for kind in ("cpu", "mps"):
        assert {bounds_of(kind, size * GIB) for size in (1, 24, 2000)} == {SMALLEST}


@pytest.mark.parametrize(
    ("gib", "batch", "nodes"),
    [
        (2, 21, 128),
        (8, 21, 128),
        (16, 22, 128),
        (24, 23, 256),
        (40, 24, 256),
        (80, 26, 512),
        (141, 26, 512),
        (180, 27, 1024),
        (4000, 27, 1024),
    ],
)
def test_a_gpu_has_the_largest_batch_whose_margin_is_an_eighth_of_it(
    gib: int, batch: int, nodes: int
) -> None:
    found = bounds_of("cuda", gib * GIB)
    assert found == Bounds(2**batch, nodes)
    if found != SMALLEST:  # from eight margins on, and not a byte before
        assert bounds_of("cuda", 8 * found.margin) == found
        assert bounds_of("cuda", 8 * found.margin - 1).batch == found.batch // 2


def test_margins_in_bytes() -> None:
    """Records 12 a number, 32 streams of 4, logits 48; 40 streams where packs are wide."""
    records_and_logits = 2**26 * 12 + 2**24 * 48
    assert SMALLEST.margin == records_and_logits + 2**21 * 128 == 1_879_048_192
    assert Bounds(2**26, 512).margin == records_and_logits + 2**26 * 128
    assert Bounds(2**27, 1024).margin == records_and_logits + 2**27 * 160


def test_of_several_devices_the_smallest_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"cuda:0": 80 * GIB, "cuda:1": 24 * GIB, "cpu": 0}
    monkeypatch.setattr(bounds_module, "total_memory", sizes.__getitem__)
    assert bounds_on(["cuda:0"]) == Bounds(2**26, 512)
    assert bounds_on({"cuda:0", "cuda:1"}) == Bounds(2**23, 256)
    assert bounds_on({"cuda:0", "cpu"}) == SMALLEST


def test_what_is_free_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    from tinyablation.models.devices import Memory

    found = set()
    for free in (1, 20, 79):
        memory = Memory(free * GIB, 80 * GIB)
        monkeypatch.setattr(bounds_module, "memory_of", lambda _, memory=memory: memory)
        found.add(bounds_on(["cuda:0"]))
    assert found == {Bounds(2**26, 512)}


def test_they_are_known_without_torch() -> None:
    code = "import sys, tinyablation.models.bounds; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
