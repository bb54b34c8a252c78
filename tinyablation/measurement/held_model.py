"""One model, in memory only while it is needed: loading, dropping and facts about it.

What needs no torch (`facts`) is separate from what needs the model (`model`, `engine`), so that
complete measurements are read without loading anything.
"""

import time
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from tinyablation.measurement.precision import TRUSTED_DEVICE, TRUSTED_DTYPE
from tinyablation.memo import Memo
from tinyablation.models.loading import ModelFacts, describe
from tinyablation.models.registry import ModelEntry
from tinyablation.models.residency import ALONE, Sharing
from tinyablation.runs.derived import Circumstances, environment_fingerprint

if TYPE_CHECKING:
    from tinyablation.corpora.tokenisation import Encoder
    from tinyablation.engine.engine import Engine
    from tinyablation.engine.hook_backends import BridgeHooks, PlainHooks
    from tinyablation.models.loading import LoadedModel
    from tinyablation.models.residency import Residency


# A model narrower than this computes in one thread on a CPU: its matrix products are too small to
# divide, and a fixed order of sums gives the same table for any number of workers.
WIDE = 512


class HeldModel:
    """A model of the registry on one device, in one dtype.

    Only `model` loads it, and only `drop_model` frees its memory.
    """

    def __init__(
        self,
        entry: ModelEntry,
        *,
        device: str,
        dtype: str | None,
        threads: int | None,
        sharing: Sharing = ALONE,
    ) -> None:
        self.entry = entry
        self.device = device
        self.dtype: str = dtype or entry.dtype
        self.threads = threads
        self.sharing = sharing
        # Evidence bundles without weights provide their description instead (rederivation.py).
        self.described_by: Callable[[ModelEntry], ModelFacts] = describe
        self.encoders = Memo()  # by tokenizer_hash, for benches of other models to share
        self._residency: Residency | None = None
        self._loading_seconds: float | None = None

    @property
    def is_trusted(self) -> bool:
        """Whether only the order of sums needs to be checked: float32 on a CPU."""
        return (self.device, self.dtype) == (TRUSTED_DEVICE, TRUSTED_DTYPE)

    @cached_property
    def facts(self) -> ModelFacts:
        """The facts from the model's files; raises WeightsMissing if there are none."""
        return self.described_by(self.entry)

    @cached_property
    def model(self) -> "LoadedModel":
        """The model in memory, loaded at the first access, when its turn comes."""
        import torch

        from tinyablation.models.devices import choose_device, reset_peak
        from tinyablation.models.residency import acquire_residency

        if self.threads is not None:
            torch.set_num_threads(self.threads if self.facts.d_model >= WIDE else 1)
        choose_device(self.device)  # reports a missing device before its driver fails
        started = time.perf_counter()
        residency = acquire_residency(
            self.entry,
            self.facts,
            device=self.device,
            dtype=self.dtype,
            sharing=self.sharing,
            yield_device=self.yield_device,
        )
        self._residency = residency
        self._loading_seconds = time.perf_counter() - started
        for device in residency.devices:  # peak of measuring; includes the weights
            reset_peak(device)
        return residency.loaded

    @property
    def encoder(self) -> "Encoder":
        """The model's tokenizer, which remembers what it split."""
        from tinyablation.corpora.tokenisation import Encoder

        return self.encoders(self.facts.tokenizer_hash, lambda: Encoder(self.model.tokenizer))

    @cached_property
    def engine(self) -> "Engine":
        from tinyablation.engine.engine import Engine

        return Engine(self.model)

    @cached_property
    def plain_hooks(self) -> "PlainHooks":
        """The same model hooked without the engine; BackendError if that is impossible."""
        from tinyablation.engine.hook_backends import PlainHooks

        return PlainHooks(self.model)

    @cached_property
    def bridge_hooks(self) -> "BridgeHooks":
        """A TransformerBridge over the same weights; BackendError if that is impossible."""
        from tinyablation.engine.hook_backends import BridgeHooks

        return BridgeHooks(self.model)

    @cached_property
    def reference(self) -> "HeldModel":
        """This model on the CPU in float32, which verifies other devices; itself if it is there.

        It uses no accelerator, so it takes no turns and never yields.
        """
        if self.is_trusted:
            return self
        made = HeldModel(
            self.entry,
            device=TRUSTED_DEVICE,
            dtype=TRUSTED_DTYPE,
            threads=self.threads,
            sharing=self.sharing,
        )
        made.described_by, made.encoders = self.described_by, self.encoders
        made.__dict__["facts"] = self.facts
        return made

    def require_unchanged(self, *, fresh: bool = False) -> None:
        """Raise ModelChanged if the files of a model in memory changed (see FilesRead).

        fresh: hash every byte of them again.
        """
        reference = self.__dict__.get("reference", self)
        for held in (self,) if reference is self else (self, reference):
            loaded = held.__dict__.get("model")
            if loaded is not None and loaded.files is not None:
                loaded.files.require_unchanged(fresh=fresh)

    def drop_reference(self) -> None:
        """Free the memory of the model that verifies this one."""
        reference = self.__dict__.pop("reference", None)
        if reference is not None:
            reference.drop_model()

    def drop_model(self) -> None:
        """Free the model's memory; the model is loaded again when it is next needed."""
        names = ("bridge_hooks", "plain_hooks", "engine", "model")
        held = [self.__dict__.pop(name, None) for name in names]
        if any(each is not None for each in held):
            import gc

            from tinyablation.models.devices import empty_cache

            held.clear()
            residency, self._residency = self._residency, None
            devices, turn = ((), None) if residency is None else (residency.devices, residency.turn)
            del residency
            gc.collect()  # reference cycles would keep the memory for an indefinite time
            for device in devices:
                empty_cache(device)
            if turn is not None:  # only now may another process use the memory
                turn.release()

    @property
    def holds_turn(self) -> bool:
        """Whether the model is on an accelerator that other processes may be waiting for."""
        return self._residency is not None and self._residency.turn is not None

    def yield_device(self) -> None:
        """Free what this process holds on an accelerator, before it waits for other processes."""
        if self.holds_turn:
            self.drop_model()

    def circumstances(self) -> Circumstances:
        """What this bench computes with, for provenance.json and profile.json.

        Peak device memory and halvings of batches are counted from the loading of the model.
        """
        from tinyablation.models.devices import peak_bytes

        facts, model = self.facts, self.model.model
        placed = [str(where) for where in getattr(model, "hf_device_map", {}).values()]
        provenance = {
            "repo": self.entry.repo,
            "revision": self.entry.revision,
            "commit": facts.commit,
            "package": None if self.entry.package is None else self.entry.package.place,
            "derived": facts.derived or None,
            "architecture": facts.architecture,
            "model_type": facts.model_type,
            "weight_bytes": facts.weight_bytes,
            "weights_dtype": self._weights_dtype,
            "attention": str(model.config._attn_implementation),
            "placed_on": sorted({f"cuda:{name}" if name.isdigit() else name for name in placed}),
            "tokenizer_state": self._tokenizer_state,
            "environment": self._environment,
        }
        seconds = self._loading_seconds
        devices = () if self._residency is None else self._residency.devices
        peaks = [peak for device in devices if (peak := peak_bytes(device)) is not None]
        profile = {
            "loading_seconds": None if seconds is None else round(seconds, 6),
            "peak_device_bytes": sum(peaks) if peaks else None,
            "batch_halvings": self.engine.room.halvings,
        }
        return Circumstances((self._device_facts,), provenance, profile)

    @cached_property
    def _device_facts(self) -> Mapping[str, object]:
        # Cached: the driver version comes from another process, which takes a second or two.
        from tinyablation.models.devices import describe_device

        return describe_device(self.device)

    @cached_property
    def _environment(self) -> str:
        return environment_fingerprint()

    @cached_property
    def _tokenizer_state(self) -> str:
        # The same files may come to another state under another version of transformers.
        from tinyablation.models.tokenizer_state import state_of

        return state_of(self.model.tokenizer)

    @cached_property
    def _weights_dtype(self) -> str | None:
        from tinyablation.models.checkpoint import weight_files
        from tinyablation.models.weight_copies import file_dtype

        return file_dtype(weight_files(self.facts.folder, self.entry.id))
