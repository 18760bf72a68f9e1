import pytest

from labelled_cases import CLASSIFY, SEGMENT, data_of, masked, prepared
from modelsgenesis import __version__
from modelsgenesis.checkpoints import Bundle, load_bundle, save_bundle
from modelsgenesis.configs import CONTRACTS, BundleConfig, GenesisUNetConfig, Provenance
from modelsgenesis.errors import ConfigurationError, DataError
from modelsgenesis.networks import build_network
from modelsgenesis.training.task_networks import initial_model
from recorded_notes import Notes


def genesis_of(folder, modality="xray", channels=("image",), **shape):
    config = GenesisUNetConfig(**{"dims": 2, "widths": (4, 8), "norm": "batch", "statistics": "batch", **shape})
    bundle = BundleConfig(
        task="restoration",
        network=config,
        input=CONTRACTS[modality].override(channels=channels),
        patch_size=(16,) * config.dims,
        provenance=Provenance(origin="pretrained", library_version=__version__),
    )
    return save_bundle(folder, Bundle(build_network(config), bundle))


def start(folder, data, config, **options):
    bundle = None if folder is None else load_bundle(folder)
    return initial_model(bundle, data, config, name="genesis", **options)


CASES = [prepared(index, (index % 2,)) for index in range(2)]
DATA = data_of(CASES, ("none", "square"))


def test_a_classifier_takes_the_encoder_and_names_what_it_took(tmp_path):
    notes = Notes()
    begun = start(genesis_of(tmp_path / "genesis"), DATA, CLASSIFY, reporter=notes)
    assert begun.init == "genesis"
    assert begun.network.config.levels == (0, 1)
    assert begun.network.config.encoder.statistics == "running"
    assert "encoder.levels.0.0.convolution.weight" in begun.pretrained
    assert not any(name.startswith("head.") for name in begun.pretrained)
    assert "the answer for an image does not depend on the others" in notes.notes[0]
    assert notes.notes[-1].startswith("genesis: ")


def test_the_control_has_the_shape_and_nothing_else(tmp_path):
    folder = genesis_of(tmp_path / "genesis")
    begun, taken = (start(folder, DATA, CLASSIFY, from_scratch=scratch) for scratch in (True, False))
    assert begun.network.config == taken.network.config
    assert (begun.init, begun.pretrained) == (None, ())
    weights = [one.network.encoder.state_dict()["levels.0.0.convolution.weight"] for one in (begun, taken)]
    assert (weights[0] != weights[1]).any()


def test_a_network_of_its_own_follows_the_data():
    volumes = data_of(CASES, ("none", "square"), channels=("t1", "t2"))
    begun = start(None, volumes, CLASSIFY.override(network=GenesisUNetConfig(dims=3, widths=(4, 8), norm="instance")))
    assert (begun.network.config.encoder.dims, begun.network.config.encoder.in_channels) == (2, 2)
    assert begun.contract.channels == ("t1", "t2")
    masks = data_of([masked(0)], ("background", "square", "stripe"), "segmentation")
    begun = start(None, masks, SEGMENT)
    assert (begun.network.config.out_channels, begun.network.config.output) == (3, "linear")


def test_more_channels_than_the_weights_had_are_said(tmp_path):
    notes = Notes()
    several = data_of(CASES, ("none", "square"), channels=("t1", "t2"))
    begun = start(genesis_of(tmp_path / "genesis"), several, CLASSIFY, reporter=notes)
    assert begun.contract.channels == ("t1", "t2")
    assert "stem of 1 channels repeated to 2" in notes.notes[-1]
    assert "encoder.levels.0.0.convolution.weight" in begun.pretrained


@pytest.mark.parametrize(
    ("named", "taken", "said"),
    [
        (("FLAIR", "T1"), ("t1", "flair"), "channels by name in the order of genesis, t1, flair"),
        (("T1", "T2"), ("T1", "T2"), "the channels of squares, T1, T2, are not the model's t1, flair"),
    ],
)
def test_channels_of_the_same_names_are_brought_to_the_order_of_the_weights(tmp_path, named, taken, said):
    notes, folder = Notes(), genesis_of(tmp_path / "genesis", in_channels=2, channels=("t1", "flair"))
    data = data_of(CASES, ("none", "square"), channels=named)
    assert start(folder, data, CLASSIFY, reporter=notes).contract.channels == taken
    assert any(said in note for note in notes.notes)


def test_weights_of_another_modality_are_warned_of_with_the_reason(tmp_path):
    notes = Notes()
    begun = start(genesis_of(tmp_path / "genesis", modality="ultrasound"), DATA, CLASSIFY, reporter=notes)
    assert begun.contract.modality == "xray"
    assert "the weights were trained on ultrasound, the data is xray: preparing it as xray" in " ".join(notes.notes)


def test_data_that_does_not_say_what_it_is_is_prepared_as_the_weights_expect(tmp_path):
    notes, unknown = Notes(), data_of(CASES, ("none", "square"))
    object.__setattr__(unknown, "modality", None)
    begun = start(genesis_of(tmp_path / "genesis"), unknown, CLASSIFY, reporter=notes)
    assert begun.contract.modality == "xray"
    assert "squares does not say what its images are: preparing them as xray" in notes.notes
    with pytest.raises(DataError, match="modality cannot be told"):
        start(None, unknown, CLASSIFY)


def test_refuses_weights_for_other_dimensions_and_says_what_to_do(tmp_path):
    folder = genesis_of(tmp_path / "genesis", modality="ct", dims=3)
    with pytest.raises(ConfigurationError, match=r"genesis is for images of 3 dimensions, .* squares have 2: .*dims=2"):
        start(folder, DATA, CLASSIFY)
