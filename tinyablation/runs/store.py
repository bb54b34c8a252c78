"""Run directories: each measurement at its address, computed once, continued if interrupted.

<root>/<model>-<battery>-<condition>_<hash>/
    config.json  metrics/{summary.json,{head_impact,layer_impact,per_example}.parquet}
    artifacts/impact_heatmap.{png,html}  provenance.json  profile.json  verify.json
    manifest.json (last)
    and, only while incomplete: partial_summary.json  shards/
Locks: see locks.py.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyablation.engine.tables import (
    HEAD_IMPACT_COLUMNS,
    LAYER_IMPACT_COLUMNS,
    PER_EXAMPLE_COLUMNS,
    check_examples,
    join_examples,
    read_table,
    write_table,
)
from tinyablation.errors import RunError
from tinyablation.files.manifests import (
    MANIFEST,
    Damaged,
    check_manifest,
    read_json,
    remedy,
    remove_leftovers,
    write_atomic,
    write_json,
    write_manifest,
    writing,
)
from tinyablation.runs import derived as artefacts
from tinyablation.runs.address import RunConfig
from tinyablation.runs.directories import (
    CONFIG,
    check_directory,
    move_aside,
    read_config,
    require_config,
)
from tinyablation.runs.filling import fill
from tinyablation.runs.locks import RunLocks
from tinyablation.runs.shards import (
    PARTIAL_SUMMARY,
    Plan,
    ShardFolder,
    has_partial,
    remove_partial,
    require_plan,
    sidecar_path,
)
from tinyablation.verdicts.floors import Noise

if TYPE_CHECKING:
    import pandas as pd

    from tinyablation.interventions.batteries import Shard

_LOG = logging.getLogger(__name__)

__all__ = ["NotVerified", "Run", "RunConfig", "RunError", "RunStore"]

SUMMARY = "metrics/summary.json"
HEAD_IMPACT = "metrics/head_impact.parquet"
LAYER_IMPACT = "metrics/layer_impact.parquet"
PER_EXAMPLE = "metrics/per_example.parquet"
HEATMAP_PNG = "artifacts/impact_heatmap.png"
HEATMAP_HTML = "artifacts/impact_heatmap.html"
PROVENANCE = "provenance.json"
PROFILE = "profile.json"
VERIFY = "verify.json"
TABLES = (HEAD_IMPACT, LAYER_IMPACT, PER_EXAMPLE)
# summary.json comes last: a killed run must not leave a summary without its files.
FILES = (
    CONFIG,
    PER_EXAMPLE,
    HEAD_IMPACT,
    LAYER_IMPACT,
    HEATMAP_PNG,
    HEATMAP_HTML,
    PROVENANCE,
    PROFILE,
    VERIFY,
    SUMMARY,
)


class NotVerified(RunError):
    """A sample of a run differs from the trusted remeasurement, so the run fails."""


@dataclass(frozen=True)
class Kept:
    """What lies, complete, in the directory of an address."""

    path: Path
    config: RunConfig

    @property
    def name(self) -> str:
        return self.config.name


@dataclass(frozen=True)
class Run(Kept):
    """A complete run. Get one from RunStore.obtain or RunStore.open, which check all its files."""

    def table(self) -> pd.DataFrame:
        """One row per (intervention, example), baseline included: PER_EXAMPLE_COLUMNS."""
        return read_table(self.path / PER_EXAMPLE, PER_EXAMPLE_COLUMNS)

    def head_impact(self) -> pd.DataFrame:
        """Mean effect per single head, method, split and metric: HEAD_IMPACT_COLUMNS."""
        return read_table(self.path / HEAD_IMPACT, HEAD_IMPACT_COLUMNS)

    def layer_impact(self) -> pd.DataFrame:
        """Mean effect per intervention on a layer, split and metric: LAYER_IMPACT_COLUMNS."""
        return read_table(self.path / LAYER_IMPACT, LAYER_IMPACT_COLUMNS)

    def summary(self) -> dict[str, Any]:
        """summary.json: the baseline's figures with their intervals."""
        return read_json(self.path / SUMMARY)

    def provenance(self) -> dict[str, Any]:
        """provenance.json: versions, platform, devices, hashes, time."""
        return read_json(self.path / PROVENANCE)

    def noise_floor(self) -> Noise:
        """The largest numerical noise measured in a change of LD, in logits (verify.json).

        It includes that of the other verified columns, each in its unit.
        """
        found = read_json(self.path / VERIFY)
        where = f"{self.config.device} in {self.config.dtype}"
        columns = {
            name: float(figures["noise"])
            for name, figures in found.items()
            if isinstance(figures, dict) and "noise" in figures
        }
        return Noise(float(found["noise_floor"]), where, columns)


@dataclass(frozen=True)
class RunStore:
    """Runs under one folder.

    lock_timeout: seconds to wait for another process; -1: no limit. before_waiting: called each
    time before this process starts to wait for another one that works on the same run. It must
    release what that process may need: if one holds the accelerator and waits for the run while the
    other holds the run and waits for the accelerator, both wait forever. also: called with each
    complete directory before it is reused; raises Damaged if it must not be. remeasure: move such a
    directory, or a damaged one, aside (see renew), instead of refusing it.
    """

    root: Path
    lock_timeout: float = -1
    remeasure: bool = False
    before_waiting: Callable[[], None] | None = field(default=None, compare=False, repr=False)
    also: Callable[[Path], object] | None = field(default=None, compare=False, repr=False)

    def path(self, config: RunConfig) -> Path:
        return Path(self.root) / config.name

    def status(self, config: RunConfig) -> str:
        """Either "complete", "partial" or "absent", from the names of files only."""
        folder = self.path(config)
        if (folder / MANIFEST).exists():
            return "complete"
        return "partial" if (folder / CONFIG).exists() else "absent"

    def open(self, name: str) -> Run:
        """The complete run of that directory name, all its files checked; RunError otherwise."""
        if name in ("", ".", "..") or set(name) & set("/\\\0"):
            raise RunError(f"{self.root}: {name!r} is not the name of a run directory in it")
        folder = Path(self.root) / name
        if not (folder / MANIFEST).exists():
            hint = (
                f": see {folder / PARTIAL_SUMMARY}" if (folder / PARTIAL_SUMMARY).exists() else ""
            )
            raise RunError(f"{folder}: no complete run (no {MANIFEST}){hint}")
        config = read_config(folder)
        check_manifest(folder, listed=FILES)
        return Run(folder, config)

    def renew(self, config: RunConfig, listed: Sequence[str] = FILES) -> None:
        """Make room for a new measurement if the complete one is damaged and `remeasure` is set.

        listed: files that the manifest must have. The directory is moved to <root>/.set-aside/,
        where nothing reads it; nothing is deleted.
        """
        folder = self.path(config)
        if not self.remeasure or not (folder / MANIFEST).exists():
            return
        with self.lock(config.name):
            self.is_sound(config.name, lambda: self.check(config, listed))

    def check(self, config: RunConfig, listed: Sequence[str] = FILES) -> dict[str, Any]:
        """The manifest of a complete directory, for reuse; Damaged if that must not be."""
        manifest = check_directory(self.path(config), config, listed)
        if self.also is not None:
            self.also(self.path(config))
        return manifest

    def is_sound(self, name: str, check: Callable[[], object]) -> bool:
        """Whether check() raises nothing; if it raises Damaged, see renew. Call with the lock."""
        try:
            check()
        except Damaged as damage:
            if not self.remeasure:
                raise
            moved = move_aside(Path(self.root, name))
            _LOG.warning("%s: moved to %s, and measured anew (%s)", name, moved, damage)
            return False
        return True

    def obtain(
        self,
        config: RunConfig,
        shards: Sequence[Shard],
        compute: Callable[[Shard], pd.DataFrame],
        examples: pd.DataFrame,
        *,
        progress: bool = False,
        verify: Callable[[pd.DataFrame], Mapping[str, Any]],
        circumstances: Callable[[], artefacts.Circumstances] | None = None,
    ) -> Run:
        """The run at `config`'s address: reused if complete, continued if partial, else computed.

        `shards`: "baseline" first. `compute(shard)` returns engine rows (tables.ENGINE_COLUMNS):
        exactly one per example and intervention of the shard; baseline rows beside interventions
        are checked against the baseline shard, then dropped. `examples`: tables.EXAMPLE_COLUMNS,
        indexed 0..n-1. `progress`: a bar over shards.
        `verify(table)` remeasures a sample of the run's table and returns verify.json, with
        "noise_floor" in logits; it raises NotVerified to fail the run. `circumstances` returns what
        the measurement is computed with, for provenance.json and profile.json.

        Several processes may work on a run, each on its own shards; the one that finds all of them
        done verifies them and writes the tables, while the others wait.

        Raises RunError if a file of the directory was changed, if it belongs to another config,
        battery or corpus, if rows are not finite or not those requested, if the sample is not
        verified (NotVerified: the next attempt recomputes everything), and if a lock cannot be
        acquired in time. A complete run is never recomputed or overwritten.
        """
        finishing = _Finishing(verify, circumstances)
        plan = Plan(tuple(shards), len(examples), check_examples(examples))
        begun = self._begin(config, plan)
        if isinstance(begun, Run):
            return begun
        locks, continued = self._locks(config.name), begun.recover()
        with _said(begun, locks):
            while True:
                fill(begun, locks, shards, compute, circumstances, progress=progress)
                with locks.whole():
                    if begun.is_complete or len(begun.recover()) == len(shards):
                        self._finish(begun, config, examples, continued, finishing)
                        return self._reuse(config, plan)
                # The run waited for was not verified, so its shards are no longer trusted.

    def advance(
        self,
        config: RunConfig,
        shards: Sequence[Shard],
        keys: Sequence[str],
        compute: Callable[[Shard], pd.DataFrame],
        examples: pd.DataFrame,
        *,
        verify: Callable[[pd.DataFrame], Mapping[str, Any]],
        circumstances: Callable[[], artefacts.Circumstances] | None = None,
    ) -> dict[str, float]:
        """Compute the shards called `keys`, and finish the run if they were the last.

        Returns the seconds of each shard that was computed here. Arguments and errors are those of
        `obtain`; if another process is about to finish the run, this one leaves it to that process.
        """
        finishing = _Finishing(verify, circumstances)
        plan = Plan(tuple(shards), len(examples), check_examples(examples))
        begun = self._begin(config, plan)
        if isinstance(begun, Run):
            return {}
        locks, missing = self._locks(config.name), self.missing(config, shards)
        wanted = [shard for shard in shards if shard.key in keys]
        with _said(begun, locks):
            own = fill(begun, locks, wanted, compute, circumstances)
            seconds = {key: float(begun.sidecars[key]["seconds"]) for key in own}
            if not self.missing(config, shards):
                continued = [shard.key for shard in shards if shard.key not in missing]
                with locks.whole_if_free() as held:
                    if held and (begun.is_complete or len(begun.recover()) == len(shards)):
                        self._finish(begun, config, examples, continued, finishing)
        return seconds

    def missing(self, config: RunConfig, shards: Sequence[Shard]) -> list[str]:
        """Keys of the missing shards, from the names of files only."""
        folder = self.path(config)
        if (folder / MANIFEST).exists():
            return []
        return [shard.key for shard in shards if not sidecar_path(folder, shard.key).exists()]

    @contextlib.contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Hold the lock of a run directory. The system frees it when its holder dies."""
        with self._locks(name).whole():
            yield

    def _locks(self, name: str) -> RunLocks:
        return RunLocks(Path(self.root), name, self.lock_timeout, self.before_waiting)

    def _reuse(self, config: RunConfig, plan: Plan) -> Run:
        folder, manifest = self.path(config), self.check(config)
        plan.require(manifest.get("plan", {}), folder / MANIFEST)
        return Run(folder, config)

    def _begin(self, config: RunConfig, plan: Plan) -> ShardFolder | Run:
        """The folder of shards to fill, created if necessary, or the run if it is complete."""
        self.renew(config)
        folder = self.path(config)
        if (folder / MANIFEST).exists() and not has_partial(folder):
            return self._reuse(config, plan)
        with self._locks(config.name).notes():
            if (folder / MANIFEST).exists():
                run = self._reuse(config, plan)
                remove_partial(folder)  # its writer was killed between manifest and clean-up
                return run
            with writing(folder):
                folder.mkdir(parents=True, exist_ok=True)
            if (folder / CONFIG).exists():
                require_config(folder, config)
            else:
                remove_leftovers(folder)  # no process writes here before there is a config
                if any(folder.iterdir()):
                    strange = sorted(path.name for path in folder.iterdir())
                    raise RunError(f"{folder}: holds {strange} but no {CONFIG}. {remedy(folder)}")
                write_json(folder / CONFIG, config.model_dump(mode="json"))
            require_plan(folder, plan)
        return ShardFolder(folder, plan, config.dtype)

    def _finish(
        self,
        work: ShardFolder,
        config: RunConfig,
        examples: pd.DataFrame,
        continued: Sequence[str],
        finishing: _Finishing,
    ) -> None:
        """Verify and write a run whose shards are all done. Call only while holding its lock."""
        locks = self._locks(config.name)
        if work.is_complete:
            return
        table = join_examples(work.merged(), examples)
        with locks.notes():
            work.say("measuring a sample again")
        verified = _verify(work, finishing.verify, table)
        with locks.notes():
            work.say("writing the tables")
        _write(work, config, table, continued, verified, finishing.found())
        with locks.notes():
            remove_partial(work.folder)
        locks.forget_claims(shard.key for shard in work.plan.shards)


@dataclass(frozen=True)
class _Finishing:
    """How a run is verified after its last shard, and the circumstances of its computation."""

    verify: Callable[[pd.DataFrame], Mapping[str, Any]]
    circumstances: Callable[[], artefacts.Circumstances] | None

    def found(self) -> artefacts.Circumstances:
        return self.circumstances() if self.circumstances else artefacts.NOTHING_MORE


@contextlib.contextmanager
def _said(work: ShardFolder, locks: RunLocks) -> Iterator[None]:
    """Write an error that ends the filling of a run into its partial summary."""
    try:
        yield
    except BaseException as reason:
        state = "interrupted" if isinstance(reason, KeyboardInterrupt) else "failed"
        with contextlib.suppress(OSError), locks.notes():
            work.say(state, reason=f"{type(reason).__name__}: {reason}"[:500])
        raise


def _verify(
    work: ShardFolder,
    verify: Callable[[pd.DataFrame], Mapping[str, Any]],
    table: pd.DataFrame,
) -> dict[str, Any]:
    """verify.json; if verification fails, the shards are wrong and become untrusted."""
    try:
        return dict(verify(table))
    except NotVerified:
        work.distrust()
        raise


def _write(
    work: ShardFolder,
    config: RunConfig,
    table: pd.DataFrame,
    continued: Sequence[str],
    verified: Mapping[str, Any],
    circumstances: artefacts.Circumstances,
) -> None:
    """Write every file of a run whose shards are all done, the manifest last."""
    from tinyablation.runs import heatmaps as plots

    folder = work.folder
    remove_leftovers(folder)  # of killed writers: no one else writes while we hold the lock
    impact = artefacts.head_impact(table, config.name, config.seed)
    seconds = {key: float(work.sidecars[key]["seconds"]) for key in work.done}
    panels = plots.panels(impact)
    png, html = (
        plots.draw_png(panels, config.name),
        plots.draw_html(panels, config.name),
    )
    layers = artefacts.layer_impact(table, config.name, config.seed)
    # What follows is synced with the manifest.
    write_table(folder / PER_EXAMPLE, table, PER_EXAMPLE_COLUMNS, durable=False)
    write_table(folder / HEAD_IMPACT, impact, HEAD_IMPACT_COLUMNS, durable=False)
    write_table(folder / LAYER_IMPACT, layers, LAYER_IMPACT_COLUMNS, durable=False)
    write_atomic(folder / HEATMAP_PNG, lambda handle: handle.write(png), durable=False)
    write_atomic(folder / HEATMAP_HTML, lambda handle: handle.write(html.encode()), durable=False)
    for name, content in (
        (PROVENANCE, artefacts.provenance(config, circumstances, work.devices())),
        (PROFILE, artefacts.profile(seconds, continued, len(table), circumstances)),
        (VERIFY, verified),
        (SUMMARY, artefacts.summarise(table, config.seed)),
    ):
        write_json(folder / name, content, durable=False)
    facts = {
        "run": config.name,
        "hash": config.hash,
        "finished": artefacts.utc_now(),
        "plan": work.plan.record(),
    }
    write_manifest(folder, FILES, facts)
