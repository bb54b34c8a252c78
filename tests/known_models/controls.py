"""For every claim: a model of which it is true, and one of which it is false."""

from collections.abc import Callable
from typing import NamedTuple

from claims.suppressors import test_binders as binders
from claims.suppressors import test_calibration as calibration
from claims.suppressors import test_every_condition as every
from claims.suppressors import test_geometry as geometry
from claims.suppressors import test_h1_suppressors as h1
from claims.suppressors import test_h5_amplification as h5_amplification
from claims.suppressors import test_h5_coalitions as h5
from claims.suppressors import test_h6_patching as h6
from claims.suppressors import test_ov as ov
from claims.suppressors import test_steering as steering
from claims.suppressors import test_training as training
from claims.suppressors import test_validity as validity

Claim = Callable[..., None]


class Control(NamedTuple):
    """Names of models.MODELS, both judged under one condition.

    (A claim about every condition is judged under all that the models know of.)
    """

    true_of: str
    false_of: str
    condition: str = "facts"


CONTROLS: dict[Claim, Control] = {
    validity.test_model_is_competent: Control("binder", "ignorant"),
    validity.test_clean_and_corrupt_are_told_apart: Control("suppressors", "ignorant"),
    validity.test_swapped_labels_flip_the_logit_difference: Control("suppressors", "contrary"),
    validity.test_null_prompt_shows_no_prior: Control("suppressors", "contrary"),
    h1.test_top_suppressor_is_in_layer_zero: Control("suppressors", "outdone"),
    h1.test_named_head_tops_its_layer: Control("suppressors", "outdone"),
    h1.test_partners_come_next: Control("suppressors", "outdone"),
    h1.test_same_heads_lead_in_every_condition: Control("suppressors", "outdone"),
    h1.test_sibling_has_the_same_suppressor: Control("suppressors", "amplifiers"),
    h1.test_trio_of_the_small_model_raises_ld: Control("suppressors", "amplifiers"),
    h1.test_named_head_is_the_primary_suppressor: Control("suppressors", "outdone"),
    h1.test_named_pair_suppresses: Control("suppressors", "amplifiers"),
    h1.test_no_other_head_does_as_well: Control("suppressors", "outdone"),
    h5.test_zeroing_the_trio_raises_ld: Control("suppressors", "amplifiers"),
    h5.test_pairs_with_the_leader_beat_the_pair_without: Control("suppressors", "amplifiers"),
    h5.test_cooperation_is_super_additive: Control("conspirators", "suppressors"),
    h5.test_leader_alone_recovers_most: Control("suppressors", "outdone"),
    h5.test_partners_recover_little: Control("suppressors", "outdone"),
    h5.test_no_other_trio_does_as_well: Control("suppressors", "outdone"),
    h5_amplification.test_partners_amplify_the_leader: Control("suppressors", "amplifiers"),
    h5_amplification.test_pairs_cooperate: Control("conspirators", "suppressors"),
    every.test_named_head_suppresses_in_every_condition: Control("suppressors", "outdone"),
    every.test_trio_suppresses_in_every_condition: Control("suppressors", "outdone"),
    h6.test_path_mediates_most: Control("suppressors", "gate"),
    h6.test_path_mediates_little: Control("gate", "suppressors"),
    ov.test_named_head_writes_hedges: Control("gate", "suppressors"),
    ov.test_named_head_writes_the_same_tokens: Control("gate", "suppressors"),
    ov.test_named_head_writes_no_hedges: Control("suppressors", "gate"),
    geometry.test_zeroing_the_trio_lowers_entropy: Control("suppressors", "amplifiers"),
    geometry.test_zeroing_the_trio_lowers_early_step_norm: Control("stretchers", "shrinkers"),
    geometry.test_zeroing_the_trio_raises_entropy_slightly: Control("amplifiers", "suppressors"),
    calibration.test_zeroing_the_trio_improves_calibration: Control("uneven", "evening"),
    steering.test_steering_moves_facts_and_spares_the_rest: Control("gate", "shutter"),
    binders.test_a_middle_head_binds: Control("binder", "late-binder", "binding"),
    binders.test_a_late_head_sharpens: Control("binder", "amplifiers"),
    training.test_suppression_emerges_during_training: Control("suppressors", "gate"),
}

# A model with less of an effect than what counts, and the claims of which it has that.
SMALL = "slight"
PRESENT: tuple[Claim, ...] = (
    h1.test_top_suppressor_is_in_layer_zero,
    h1.test_named_head_tops_its_layer,
    h1.test_partners_come_next,
    h1.test_sibling_has_the_same_suppressor,
    h1.test_named_head_is_the_primary_suppressor,
    h1.test_named_pair_suppresses,
    h1.test_no_other_head_does_as_well,
)

# The claims whose models need more than heads to be told apart, and the module that judges them.
ELSEWHERE: dict[Claim, str] = {
    h6.test_patching_is_asymmetric: "test_patching.py",
    h6.test_asymmetry_holds_in_windows: "test_patching.py",
}
