import pytest

from modelsgenesis.comparison import ArmConfig, ComparisonConfig
from modelsgenesis.errors import ConfigurationError

SCRATCH = ArmConfig(name="scratch", init="scratch")


def test_candidates_are_every_combination():
    config = ComparisonConfig(arms=(SCRATCH,), tune=("learning_rate=1e-3, 3e-3", "freeze_encoder=true,false"))
    assert len(config.candidates()) == 4
    assert config.candidates()[0] == ("learning_rate=1e-3", "freeze_encoder=true")
    assert ComparisonConfig(arms=(SCRATCH,)).candidates() == ((),)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"arms": ()}, "received an empty"),
        ({"arms": (SCRATCH, SCRATCH)}, "two arms are called .*scratch"),
        ({"arms": (ArmConfig(name="a b", init="scratch"), ArmConfig(name="a/b", init="x"))}, "called .*a-b"),
        ({"runs": 0}, "runs: received 0, expected 1 to"),
        ({"labels": ()}, "received an empty"),
        ({"tune": ("learning_rate",)}, "expected key=value,value"),
        ({"tune": ("network.widths=8,16",)}, "is the same for all trainings"),
        ({"tuning_runs": 0}, "tuning_runs: received 0"),
    ],
)
def test_says_what_cannot_be(fields, message):
    with pytest.raises(ConfigurationError, match=message):
        ComparisonConfig(**{"arms": (SCRATCH,), **fields})
    with pytest.raises(ConfigurationError, match="received an empty"):
        ComparisonConfig(arms=(ArmConfig(name=" ", init="scratch"),))
