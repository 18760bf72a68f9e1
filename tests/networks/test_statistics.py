import torch

from modelsgenesis.configs import GenesisUNetConfig
from modelsgenesis.networks import build_network, share_statistics

CPU = torch.device("cpu")


def test_shared_batch_norms_keep_the_tensors_and_their_names():
    network = build_network(GenesisUNetConfig(dims=2, widths=(4, 8)))
    before = dict(network.named_parameters()), list(network.state_dict())
    share_statistics(network, CPU)
    assert list(network.state_dict()) == before[1]
    assert all(p is before[0][name] for name, p in network.named_parameters())
    assert type(network.encoder.levels[0][0].norm).__name__ == "SharedBatchNorm"


def test_alone_and_in_evaluation_they_are_the_batch_norms_that_they_replace():
    for statistics in ("batch", "running"):
        torch.manual_seed(0)
        plain = build_network(GenesisUNetConfig(dims=2, widths=(4, 8), statistics=statistics))
        torch.manual_seed(0)
        shared = share_statistics(build_network(plain.config), CPU)
        batch = torch.rand(2, 1, 8, 8)
        for training in (True, False):
            assert torch.equal(plain.train(training)(batch), shared.train(training)(batch))
        for name, value in plain.state_dict().items():
            assert torch.equal(value, shared.state_dict()[name]), name


def test_on_cuda_it_is_the_one_of_pytorch():
    network = share_statistics(build_network(GenesisUNetConfig(dims=2, widths=(4, 8))), torch.device("cuda"))
    norm = network.encoder.levels[0][0].norm
    assert isinstance(norm, torch.nn.SyncBatchNorm)
    assert norm.statistics == "running"


def test_networks_without_batch_norm_stay_as_they_are():
    network = build_network(GenesisUNetConfig(dims=2, widths=(4, 8), norm="instance"))
    kinds = [type(module) for module in network.modules()]
    assert [type(module) for module in share_statistics(network, CPU).modules()] == kinds
