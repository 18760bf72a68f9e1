import pytest
import torch
from torch.utils.data import Dataset

from modelsgenesis.configs import CONTRACTS, GenesisUNetConfig, PretrainingConfig
from modelsgenesis.errors import ConfigurationError
from modelsgenesis.hardware import choose_hardware
from modelsgenesis.networks import GenesisUNet
from modelsgenesis.reporting import Reporter
from modelsgenesis.training import pretrain_network

CONFIG = PretrainingConfig(
    network=GenesisUNetConfig(widths=(4, 8), norm="instance"), patch_size=(16, 16, 16), batch_size=2
)


class Waves(Dataset):
    """Smooth sub-volumes in [0, 1]."""

    def __len__(self):
        return 8

    def __getitem__(self, item):
        phase = torch.arange(16) / 4 + item
        return (torch.sin(phase)[None, :, None, None] / 2 + 0.5).expand(1, 16, 16, 16).clone()


def test_refuses_intensities_outside_the_unit_range(tmp_path):
    contract = CONTRACTS["ct"].override(intensity="zscore")
    with pytest.raises(ConfigurationError, match="intensity 'zscore' leaves \\[0, 1\\], which the deformations assume"):
        pretrain_network(
            network=GenesisUNet(CONFIG.network),
            config=CONFIG,
            contract=contract,
            training=Waves(),
            validation=Waves(),
            output=tmp_path / "run",
            data={},
            hardware=choose_hardware("cpu"),
            reporter=Reporter(),
        )
