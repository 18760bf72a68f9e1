"""Push, then fetch: over real HTTP, with the real client."""

from pathlib import Path

import torch

from loopback_hub import LoopbackHub
from modelsgenesis import hub as hub_room
from modelsgenesis.checkpoints import load_bundle


def test_push_then_fetch_gives_equal_weights_and_only_the_bundle(
    hub: LoopbackHub, run: Path, tmp_path: Path
) -> None:
    publication = hub_room.publish(run, "clinic/genesis")
    files = hub.repositories["clinic/genesis"].files
    assert set(files) == {
        ".gitattributes",
        "config.json",
        "model.safetensors",
        "README.md",
        "figures/restorations.png",
    }
    assert publication.commit == hub.repositories["clinic/genesis"].heads["main"]
    fetched = load_bundle(hub_room.fetch_bundle("clinic/genesis"))
    original = load_bundle(run)
    x = torch.rand(1, 1, 16, 16, 8)
    assert torch.equal(fetched.network(x), original.network(x))
    assert all(
        torch.equal(a, b)
        for a, b in zip(fetched.network.parameters(), original.network.parameters(), strict=True)
    )
    assert 'from_pretrained("clinic/genesis")' in fetched.card
