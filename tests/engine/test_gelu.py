"""Activation functions in one pass. Run: pytest tests/engine/test_gelu.py"""

import torch
from transformers.activations import GELUActivation, NewGELUActivation

from tinyablation.engine.gelu import in_one_pass


def test_the_spelt_out_gelu_is_computed_in_one_pass_and_given_back():
    model = torch.nn.Sequential(NewGELUActivation(), GELUActivation())
    own = model[0].forward
    points = torch.linspace(-30, 30, 10_001)
    expected = model[0](points)
    with in_one_pass(model):
        assert model[0].forward != own and "forward" not in model[1].__dict__
        assert (model[0](points) - expected).abs().max() < 1e-5
    assert "forward" not in model[0].__dict__
    assert torch.equal(model[0](points), expected)


def test_one_that_computes_something_else_is_left_alone():
    class Doubled(NewGELUActivation):
        def forward(self, input):
            return 2 * super().forward(input)

    derived, patched = Doubled(), NewGELUActivation()
    patched.forward = lambda value: 3 * value
    with in_one_pass(torch.nn.Sequential(derived, patched)):
        assert derived(torch.ones(1)) > 1.5
        assert patched(torch.ones(1)) == 3
