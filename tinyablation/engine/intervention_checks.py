"""The interventions of a measurement, checked against the model."""

from collections.abc import Sequence

from tinyablation.engine.architecture import Architecture
from tinyablation.engine.prompt_checks import EngineError
from tinyablation.interventions.interventions import Intervention, PatchPath
from tinyablation.interventions.sites import Part


def check_interventions(arch: Architecture, interventions: Sequence[Intervention]) -> None:
    """Raise EngineError for one that is given twice, or that acts on what the model has not."""
    n_layers = len(arch.layers)
    seen: set[Intervention] = set()
    for intervention in interventions:
        label = intervention.label
        if intervention in seen:
            raise EngineError(f"intervention {label} is given twice; give it once")
        seen.add(intervention)
        for layer, head in intervention.columns.heads:
            if layer >= n_layers or head >= arch.n_heads:
                raise EngineError(
                    f"model {arch.name!r} has no head {layer}:{head} ({label}); "
                    f"it has {n_layers} layers of {arch.n_heads} heads"
                )
        layer = intervention.columns.layer
        # A path may end in the stream that leaves the last layer.
        if layer >= n_layers + isinstance(intervention, PatchPath):
            raise EngineError(
                f"model {arch.name!r} has no layer {layer} ({label}); it has {n_layers}"
            )
        if any(
            site.part == Part.MLP and arch.layers[site.layer].mlp is None
            for site in intervention.sites(n_layers)
        ):
            raise EngineError(
                f"model {arch.name!r}: its MLPs are not modules of their own; {label} cannot "
                "be measured"
            )
