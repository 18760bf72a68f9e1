import math

import pytest

from modelsgenesis.configs import RECIPES, TrainingConfig
from modelsgenesis.errors import ExplodingLossError, NonFiniteLossError
from modelsgenesis.reporting import Reporter
from modelsgenesis.training.stopping import DivergenceCheck
from recorded_notes import Notes


def check(tmp_path, reporter=None, losses=None, **changes):
    return DivergenceCheck(
        TrainingConfig(**changes), tmp_path, reporter or Reporter(), [] if losses is None else losses
    )


def test_an_exploding_loss_ends_the_run_and_says_what_it_is_compared_with(tmp_path):
    watch = check(tmp_path)
    assert all(watch.accept(0.1, step, 1e-3) for step in range(1, 21))
    assert watch.accept(99.0, 21, 1e-3)
    with pytest.raises(
        ExplodingLossError, match=r"loss is 101 at step 22, the first 20 losses had a median of 0.1: lower"
    ):
        watch.accept(101.0, 22, 1e-3)


def test_a_loss_that_has_become_small_may_jump(tmp_path):
    watch = check(tmp_path, losses=[0.7] * 20)
    assert all(watch.accept(loss, step, 1e-3) for step, loss in enumerate([1e-6] * 50 + [3.0], start=21))


def test_the_first_losses_carry_over_to_a_resumed_run(tmp_path):
    losses = []
    first = check(tmp_path, losses=losses)
    for step in range(30):
        first.accept(0.1, step, 1e-3)
    assert losses == [0.1] * 20
    with pytest.raises(ExplodingLossError):
        check(tmp_path, losses=losses).accept(200.0, 31, 1e-3)


def test_an_explosion_is_no_reason_to_end_when_the_limit_is_zero(tmp_path):
    assert check(tmp_path, losses=[0.1] * 20, divergence_factor=0.0).accept(1e9, 21, 1e-3)


def test_the_published_recipe_cannot_explode_by_its_own_output(tmp_path):
    # A sigmoid answers in [0, 1], so the worst loss is 1; the first losses of that network are about 0.1.
    watch = DivergenceCheck(RECIPES["2019"], tmp_path, Reporter(), [0.02] * 20)
    assert watch.accept(1.0, 21, 1.0)


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_no_number_ends_the_run(tmp_path, loss):
    with pytest.raises(NonFiniteLossError, match=rf"loss is {loss} at step 3 with learning rate 0.001: lower .*--init"):
        check(tmp_path).accept(loss, 3, 1e-3)


def test_skipping_passes_over_a_few_and_ends_after_ten_in_a_row(tmp_path):
    notes = Notes()
    watch = check(tmp_path, notes, nonfinite="skip")
    for step in range(1, 10):
        assert not watch.accept(math.nan, step, 1e-3)
    assert watch.accept(0.1, 10, 1e-3)
    watch.skipped = 0
    for step in range(11, 20):
        watch.refuse("the gradient is not finite", step, 1e-3)
    assert notes.notes[0] == "step 1 skipped: loss is nan"
    assert notes.notes[-1] == "step 19 skipped: the gradient is not finite"
    with pytest.raises(NonFiniteLossError, match=r"at step 20 with learning rate 0.001, 10 times in a row: lower"):
        watch.accept(math.nan, 20, 1e-3)
