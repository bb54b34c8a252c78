"""Samples whose corrupt prompts are others than the corpus's.

Run: pytest tests/measurement/test_sampling.py
"""

from dataclasses import replace

import pytest

from tests.benches import CORPORA, bench_of
from tests.small_corpora import crossed, put_crossed
from tinyablation.analysis.findings import Findings
from tinyablation.analysis.patching import residual_patches
from tinyablation.corpora.examples import CONDITIONS, SPLITS
from tinyablation.corpora.subsampling import mirror_rows
from tinyablation.interventions.batteries import PATCHED, PATCHED_UNKNOWN, Patching
from tinyablation.interventions.interventions import PatchResidual
from tinyablation.measurement.plan import plan_run


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return bench_of("tiny-gpt2", tmp_path_factory.mktemp("sampling"))


@pytest.mark.parametrize("condition", CONDITIONS)
def test_the_share_of_mirrored_pairs_is_that_of_the_sample(made, condition):
    corpus, _ = made.corpus(condition)
    rows = made.rows(condition, PATCHED, aligned=True)
    mirrors = mirror_rows(corpus.examples)
    shares = [mirrors[row] is not None for row in rows]
    assert made.sampling.mirrored(condition, PATCHED) == pytest.approx(sum(shares) / len(shares))
    # Of the facts every row is the mirror of another, also if the other is not in the sample.
    assert made.sampling.mirrored("facts", PATCHED) == 1


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_a_sample_of_unknown_words_measures_them(made, direction):
    own = plan_run(made, "facts", Patching(direction, PATCHED))
    unknown = plan_run(made, "facts", Patching(direction, PATCHED_UNKNOWN))
    assert len(unknown.examples) == len(own.examples) > 0
    prompts = dict(zip(unknown.examples["fact_id"], unknown.examples["clean"], strict=True))
    for example in unknown.measure.examples:
        assert prompts[example.fact_id] == getattr(example, unknown.battery.side)
        assert any(example is each for each in unknown.measure.pool)
    corrupt = {example.corrupt for example in unknown.measure.examples}
    clean = {example.clean for example in made.corpus("facts")[0].examples}
    assert not corrupt & clean
    assert {example.corrupt for example in own.measure.examples} <= clean


def test_the_prompts_are_part_of_the_address_and_the_old_addresses_stay(made):
    own, unknown = (
        made.config("facts", "patch-forward", sample) for sample in (PATCHED, PATCHED_UNKNOWN)
    )
    assert own.selection is None and unknown.selection.startswith("all-unknown-")
    other = made.like(made.entry)
    other.sampling._memo(  # as if other words were known
        ("pairs", "facts"),
        lambda: [replace(row, corrupt="So") for row in made.corpus("facts")[0].examples],
    )
    assert other.config("facts", "patch-forward", PATCHED_UNKNOWN).name != unknown.name


@pytest.mark.slow
def test_patches_of_a_crossed_corpus_have_a_prompt_of_every_relation(tmp_path):
    """Intervals are over relations, so none is left out; passes are saved on MLPs and heads."""
    rows = crossed(8, known="ab", unknown="")
    # Ten relations of the embedded world, cut into as many as a natural corpus has.
    many = [
        replace(row, cluster_id=f"{row.cluster_id} {place // 4 % 4}")
        for place, row in enumerate(rows)
    ]
    corpora = put_crossed(tmp_path / "corpora", many)
    (corpora / "knowledge").symlink_to(CORPORA / "knowledge")
    bench = bench_of("tiny-gpt2", tmp_path / "store", corpora)
    patches = Findings(bench).patches("facts")
    counting = bench.counting("facts", PATCHED_UNKNOWN, aligned=True)
    corpus, _ = bench.corpus("facts")
    for split in SPLITS:
        usable = {corpus.examples[row].cluster_id for row, own in counting.items() if own == split}
        assert len(usable) > 6
        for effects in (patches.denoising, patches.noising):
            assert sorted(effects.clusters(split)) == sorted(usable)
            assert {*effects.table["granularity"]} == {"", "residual"}
        # What H6.1 chooses by, judges by and shows is there.
        assert not patches.has(PatchResidual(0, positions="all"))
        for patch in residual_patches(patches.n_layers):
            assert patches.has(patch) and patches.share("noising", patch, split) is not None
