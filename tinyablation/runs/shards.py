"""The finished shards of an incomplete run, and the file that says what is missing.

Each shard is one Parquet file with a sidecar (address, size, sha256, rows), written after it: a
shard without a valid sidecar is unfinished and is recomputed. Several processes may fill one
folder: a shard is written by the holder of its claim, the summary under the lock for notes
(locks.py).
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from tinyablation.engine.tables import (
    BASELINE,
    ENGINE_COLUMNS,
    check_rows,
    read_table,
    write_table,
)
from tinyablation.errors import RunError
from tinyablation.files.hashes import HASH_DIGITS, digest, file_sha256
from tinyablation.files.manifests import (
    MANIFEST,
    read_json,
    remedy,
    write_json,
)
from tinyablation.runs.derived import distinct, utc_now

if TYPE_CHECKING:
    import pandas as pd

    from tinyablation.interventions.batteries import Shard

PARTIAL_SUMMARY = "partial_summary.json"
SHARDS = "shards"
_LOG = logging.getLogger(__name__)

# How far a baseline remeasured with a shard may differ from the run's own baseline, in logits.
# Arithmetic differs only by batch shape: by 3.5e-6 in fp32; half precision keeps 11 or 8 bits, so
# logits of size 10-20 differ by .01-.1 (and larger ones in proportion: GPT-2's are around -100). A
# larger difference means that the model changed between shards.
BASELINE_TOLERANCE = {
    "float64": 1e-6,
    "float32": 1e-4,
    "float16": 0.05,
    "bfloat16": 0.3,
}
BASELINE_LOGIT = 20.0  # the tolerance holds up to this size of logits and scales beyond
# Seconds of computation that are not to be lost in a power cut; a killed process loses none.
WORTH_SYNCING = 1.0


@dataclass(frozen=True)
class Plan:
    """The content of a run: shards in order (baseline first) over n examples."""

    shards: tuple[Shard, ...]
    n_examples: int
    examples_digest: str

    def __post_init__(self) -> None:
        keys = [shard.key for shard in self.shards]
        if not keys or keys[0] != BASELINE or self.shards[0].interventions:
            raise RunError(f'the first shard must be "{BASELINE}", without interventions: {keys}')
        if len(set(keys)) != len(keys):
            raise RunError(f"shard keys must differ: {keys}")
        seen: dict[str, str] = {}
        for shard in self.shards:
            # Other characters are not valid in file names on every platform.
            if not shard.key.replace("-", "").replace("_", "").replace(".", "").isalnum():
                raise RunError(f"shard key {shard.key!r}: letters, digits, '-', '_', '.' only")
            if shard.key != BASELINE and not shard.interventions:
                raise RunError(f"shard {shard.key!r} has no interventions")
            for label in self.labels(shard):
                if label in seen:
                    raise RunError(
                        f"{label} is in shards {seen[label]!r} and {shard.key!r}: equal "
                        "interventions are one measurement"
                    )
                seen[label] = shard.key

    @staticmethod
    def labels(shard: Shard) -> list[str]:
        """Labels of the rows a shard adds to the table."""
        if shard.key == BASELINE:
            return [BASELINE]
        return [intervention.label for intervention in shard.interventions]

    def record(self) -> dict[str, Any]:
        """The facts recorded in a directory of this plan, which must match to reuse it."""
        return {
            "examples": {"n": self.n_examples, "sha256": self.examples_digest},
            "shards": {shard.key: digest(self.labels(shard)) for shard in self.shards},
        }

    def address(self, run: str, shard: Shard) -> str:
        """12 digits that identify a shard's rows: a hash of run, interventions and examples."""
        covered = {
            "run": run,
            "key": shard.key,
            "interventions": self.labels(shard),
            "examples": {"n": self.n_examples, "sha256": self.examples_digest},
        }
        return digest(covered)[:HASH_DIGITS]

    def require(self, recorded: Any, path: Path) -> None:
        """Raise RunError if the directory was made from other examples or another battery."""
        recorded = recorded if isinstance(recorded, dict) else {}
        for name, value in self.record().items():
            if recorded.get(name) != value:
                raise RunError(
                    f"{path}: field {name!r}: the run was made from other {name} than requested "
                    f"now, under the same address. {remedy(path.parent)}"
                )


@dataclass
class ShardFolder:
    """The shards of one incomplete run in `folder`, as known to this process.

    sidecars: of the shards that it found or made, and checked. discarded: by key, why an existing
    shard could not be trusted.
    """

    folder: Path
    plan: Plan
    dtype: str
    sidecars: dict[str, dict[str, Any]] = field(default_factory=dict)
    discarded: dict[str, str] = field(default_factory=dict)

    def path(self, key: str) -> Path:
        return self.folder / SHARDS / f"{key}.parquet"

    def _sidecar(self, key: str) -> Path:
        return sidecar_path(self.folder, key)

    @property
    def is_complete(self) -> bool:
        """Whether a process completed the run; its shards are then removed."""
        return (self.folder / MANIFEST).exists()

    def has(self, shard: Shard) -> bool:
        """Whether the shard exists and can be trusted; checked again until it does."""
        if shard.key in self.sidecars:
            return True
        with contextlib.suppress(RunError):  # another process may be rewriting it now
            sidecar = read_json(self._sidecar(shard.key))
            self._trust(shard, sidecar)
            self.sidecars[shard.key] = sidecar
        return shard.key in self.sidecars

    def recover_one(self, shard: Shard) -> bool:
        """Whether the shard exists and can be trusted. Call only while holding its claim.

        A shard that cannot be trusted (truncated, changed, of another schema) is listed in
        `discarded` with the reason and recomputed; this is safe because its run was never complete.
        """
        if self.has(shard):
            return True
        reason = "no sidecar: killed while it was written"
        if self._sidecar(shard.key).exists():
            try:
                self._trust(shard, read_json(self._sidecar(shard.key)))
            except RunError as refusal:
                reason = str(refusal)
        elif not self.path(shard.key).exists():
            return False
        self._sidecar(shard.key).unlink(missing_ok=True)
        self.discarded[shard.key] = reason
        _LOG.warning("%s: shard %s is recomputed: %s", self.folder.name, shard.key, reason)
        return False

    def recover(self) -> list[str]:
        """Check every shard again; return the keys of those that can be trusted, in plan order."""
        known, self.sidecars = self.sidecars, {}
        for shard in self.plan.shards:
            with contextlib.suppress(RunError):
                if read_json(self._sidecar(shard.key)) == known.get(shard.key):
                    self.sidecars[shard.key] = known[shard.key]  # as it was when it was checked
            self.has(shard)
        return self.done

    def _trust(self, shard: Shard, sidecar: dict[str, Any]) -> None:
        path = self.path(shard.key)
        if not path.is_file():
            raise RunError(f"{path}: missing")
        if path.stat().st_size != sidecar.get("size") or file_sha256(path) != sidecar.get("sha256"):
            raise RunError(f"{path}: truncated or changed (size or sha256 differs)")
        _require_sidecar(self._sidecar(shard.key), sidecar, self.plan.n_examples)
        if sidecar.get("address") != self.plan.address(self.folder.name, shard):
            raise RunError(f"{path}: made for other examples or interventions (address differs)")
        rows = len(self.read(shard.key))
        expected = len(self.plan.labels(shard)) * self.plan.n_examples
        if rows != sidecar.get("rows") or rows != expected:
            raise RunError(f"{path}: {rows} rows, {expected} expected")

    @property
    def done(self) -> list[str]:
        return [shard.key for shard in self.plan.shards if shard.key in self.sidecars]

    def read(self, key: str) -> pd.DataFrame:
        return read_table(self.path(key), ENGINE_COLUMNS)

    def add(
        self,
        shard: Shard,
        rows: pd.DataFrame,
        seconds: float,
        devices: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """Check the rows of a shard and keep them, with the devices that computed them.

        Baseline rows in a shard of interventions (the engine always measures its own) must agree
        with the baseline shard within BASELINE_TOLERANCE and are dropped, because a table has one
        baseline. If another process is still computing it, they are compared at the merge.
        """
        where = f"{self.folder.name}, shard {shard.key}"
        beside = rows["intervention"] == BASELINE if "intervention" in rows.columns else None
        later: dict[str, Any] = {}
        if shard.key != BASELINE and beside is not None and beside.any():
            own = _OwnBaseline.of(rows[beside], self.plan.n_examples, where)
            if self.has(self.plan.shards[0]):
                self._compare_baseline(own, where)
            else:
                later = {"baseline": own._asdict()}
            rows = rows[~beside]
        check_rows(rows, self.plan.labels(shard), self.plan.n_examples, where)
        self._sidecar(shard.key).unlink(missing_ok=True)  # that of a discarded file
        path = self.path(shard.key)
        durable = seconds >= WORTH_SYNCING
        write_table(path, rows, ENGINE_COLUMNS, durable=durable)
        sidecar = {
            "key": shard.key,
            "address": self.plan.address(self.folder.name, shard),
            "rows": len(rows),
            "size": path.stat().st_size,
            "sha256": file_sha256(path),
            "seconds": seconds,
            "devices": [dict(device) for device in devices],
            "finished": utc_now(),
            **later,
        }
        write_json(self._sidecar(shard.key), sidecar, durable=durable)
        self.sidecars[shard.key] = sidecar

    def _compare_baseline(self, again: _OwnBaseline, where: str) -> None:
        first = self.read(BASELINE).sort_values("example")["logit_diff"].to_numpy()
        gaps = abs(first - again.logit_diff)
        tolerance = BASELINE_TOLERANCE.get(self.dtype, BASELINE_TOLERANCE["float32"])
        tolerance *= max(1.0, again.largest / BASELINE_LOGIT)
        if gaps.max() > tolerance:
            raise RunError(
                f"{where}: its baseline differs from the baseline shard by {gaps.max():.3g} logits "
                f"(example {gaps.argmax()}; at most {tolerance:.3g} in {self.dtype}): model or "
                f"prompts changed between shards. {remedy(self.folder)}"
            )

    def say(self, state: str, computing: str = "", **facts: Any) -> None:
        """Write partial_summary.json: finished and missing shards, and the state.

        It covers all processes: done lists the existing shards, and `computing` which process
        computes which shard, this one the one given. Call only while holding the lock for notes.
        Nothing is written if the run is complete.
        """
        if self.is_complete:
            return
        rows: dict[str, int] = {}
        for shard in self.plan.shards:
            with contextlib.suppress(RunError, KeyError, TypeError, ValueError, OverflowError):
                rows[shard.key] = int(read_json(self._sidecar(shard.key))["rows"])
        path = self.folder / PARTIAL_SUMMARY
        busy: Any = {}
        if path.exists():
            with contextlib.suppress(RunError):  # it is written anew below
                busy = read_json(path).get("computing")
        me = {"process": os.getpid(), "host": socket.gethostname()}
        busy = {
            key: who
            for key, who in (busy.items() if isinstance(busy, dict) else ())
            if key not in rows and who != me and _is_alive(who)
        }
        if computing:
            busy[computing] = me
        summary = {
            "complete": False,
            "run": self.folder.name,
            "state": state,
            "done": [shard.key for shard in self.plan.shards if shard.key in rows],
            "missing": [shard.key for shard in self.plan.shards if shard.key not in rows],
            "rows_done": sum(rows.values()),
            "computing": busy,
            "discarded": self.discarded,
            **me,
            "updated": utc_now(),
            **facts,
            "note": "No figure of this run is final. Ask for the run again to continue it.",
        }
        write_json(path, {**summary, "plan": self.plan.record()}, durable=False)

    def devices(self) -> list[dict[str, Any]]:
        """The devices that the shards were computed on, in any attempt, in plan order."""
        return distinct(device for key in self.done for device in self.sidecars[key]["devices"])

    def distrust(self) -> None:
        """Make every shard untrusted: the files stay for inspection, but are not used again."""
        for key in self.done:
            self._sidecar(key).unlink(missing_ok=True)
            del self.sidecars[key]

    def merged(self) -> pd.DataFrame:
        """All rows in plan order, read back from disk, independent of who computed them and when.

        Raises RunError if a shard's own baseline, not compared yet, differs from the baseline
        shard.
        """
        import pandas as pd

        for key in self.done:
            if "baseline" in self.sidecars[key]:
                again = _OwnBaseline(**self.sidecars[key]["baseline"])
                self._compare_baseline(again, f"{self.folder.name}, shard {key}")
        parts = [self.read(shard.key) for shard in self.plan.shards]
        return pd.concat(parts, ignore_index=True)


class _OwnBaseline(NamedTuple):
    """The baseline that was measured with a shard: LD by example, and the largest logit."""

    logit_diff: list[float]
    largest: float

    @classmethod
    def fits(cls, found: Any, n_examples: int) -> bool:
        """Whether a sidecar's field is one of these."""
        if not isinstance(found, dict) or set(found) != set(cls._fields):
            return False
        figures = found["logit_diff"]
        return (
            isinstance(figures, list)
            and len(figures) == n_examples
            and all(map(_is_number, (*figures, found["largest"])))
        )

    @classmethod
    def of(cls, rows: pd.DataFrame, n_examples: int, where: str) -> Self:
        check_rows(rows, [BASELINE], n_examples, f"{where}, its own baseline")
        largest = float(rows[["target_logit", "foil_logit"]].abs().to_numpy().max())
        return cls(rows.sort_values("example")["logit_diff"].tolist(), largest)


def _require_sidecar(path: Path, sidecar: dict[str, Any], n_examples: int) -> None:
    """Raise RunError for fields besides address, rows, size and hash that cannot be used."""
    devices = sidecar.get("devices")
    if not _is_number(sidecar.get("seconds")) or sidecar["seconds"] < 0:
        raise RunError(f"{path}: field 'seconds': {sidecar.get('seconds')!r} is not a time")
    if not isinstance(devices, list) or not all(isinstance(each, dict) for each in devices):
        raise RunError(f"{path}: field 'devices' is not a list of devices")
    if "baseline" in sidecar and not _OwnBaseline.fits(sidecar["baseline"], n_examples):
        raise RunError(f"{path}: field 'baseline' is not a figure of each example and the largest")


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and -sys.float_info.max <= value <= sys.float_info.max


def _is_alive(who: Any) -> bool:
    """Whether a process may still be alive; always true for one on another machine."""
    import psutil

    if not isinstance(who, dict) or type(who.get("process")) is not int:
        return False  # nobody whom a version of ours named
    if who.get("host") != socket.gethostname():
        return True
    return 0 < who["process"] < 2**31 and bool(psutil.pid_exists(who["process"]))


def sidecar_path(folder: Path, key: str) -> Path:
    """The sidecar file that marks a shard of an incomplete run as finished."""
    return folder / SHARDS / f"{key}.json"


def remove_partial(folder: Path) -> None:
    """Remove what a complete run no longer needs; undeletable files are left for the next time."""
    shutil.rmtree(folder / SHARDS, ignore_errors=True)
    with contextlib.suppress(OSError):
        (folder / PARTIAL_SUMMARY).unlink(missing_ok=True)


def has_partial(folder: Path) -> bool:
    """Whether anything of an incomplete run is left in the folder."""
    return (folder / SHARDS).exists() or (folder / PARTIAL_SUMMARY).exists()


def require_plan(folder: Path, plan: Plan) -> None:
    """Raise RunError if an incomplete run in `folder` was begun with other examples or shards."""
    path = folder / PARTIAL_SUMMARY
    if path.exists():
        plan.require(read_json(path).get("plan", {}), path)
