import pytest

from modelsgenesis.configs.comparison import ArmConfig, ComparisonConfig, file_name, make_arms
from modelsgenesis.errors import ConfigurationError

SCRATCH = ArmConfig(name="scratch", init="scratch")


def test_candidates_are_every_combination():
    config = ComparisonConfig(arms=(SCRATCH,), tune=("learning_rate=1e-3, 3e-3", "freeze_encoder=true,false"))
    assert len(config.candidates()) == 4
    assert config.candidates()[0] == ("learning_rate=1e-3", "freeze_encoder=true")
    assert ComparisonConfig(arms=(SCRATCH,)).candidates() == ((),)


def test_settings_go_to_their_arm():
    arms = make_arms(["scratch", "runs/x"], ["scratch", "x"], ["x:learning_rate=1e-4", "x:steps=3"])
    assert [arm.settings for arm in arms] == [(), ("learning_rate=1e-4", "steps=3")]


def test_scratch_is_made_once_for_each_dimension():
    arms = make_arms(["scratch", "runs/x"], ["scratch", "x"], dims=[2])
    assert [(arm.name, arm.dims) for arm in arms] == [("scratch", 2), ("x", 2)]
    arms = make_arms(["scratch"], ["scratch"], ["scratch 2D:steps=9"], dims=[2, 3])
    assert [(arm.name, arm.dims, arm.settings) for arm in arms] == [
        ("scratch 2D", 2, ("steps=9",)),
        ("scratch 3D", 3, ()),
    ]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ComparisonConfig(arms=()), "expected at least one --init"),
        (lambda: ComparisonConfig(arms=(SCRATCH, SCRATCH)), "two are called 'scratch'"),
        (lambda: ComparisonConfig(arms=(SCRATCH,), runs=0), "runs: received 0, expected 1 to"),
        (lambda: ComparisonConfig(arms=(SCRATCH,), labels=()), "labels: received none"),
        (lambda: ComparisonConfig(arms=(SCRATCH,), tune=("learning_rate",)), "expected key=value,value"),
        (lambda: ComparisonConfig(arms=(SCRATCH,), tune=("network.widths=8,16",)), "is the same for all trainings"),
        (lambda: ComparisonConfig(arms=(SCRATCH,), tuning_runs=0), "tuning_runs: received 0"),
        (
            lambda: make_arms(["scratch"], ["scratch"], ["scrach:steps=1"]),
            "there is no arm 'scrach'; did you mean scratch",
        ),
        (lambda: make_arms(["scratch"], ["scratch"], ["steps=1"]), "expected arm:key=value"),
        (lambda: make_arms(["scratch"], ["scratch"], dims=[4]), "dims: received 4"),
        (lambda: ArmConfig(name=" ", init="scratch"), "received an empty name"),
    ],
)
def test_says_what_cannot_be(make, message):
    with pytest.raises(ConfigurationError, match=message):
        make()


def test_two_arms_may_not_share_a_folder():
    arms = (ArmConfig(name="a b", init="scratch"), ArmConfig(name="a/b", init="x"))
    with pytest.raises(ConfigurationError, match="two are called 'a-b'"):
        ComparisonConfig(arms=arms)
    assert file_name("../..") == "arm"
