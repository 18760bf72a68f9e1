"""Somebody who publishes a model privately, and a colleague who downloads and fine-tunes it."""

import json
import re
import shutil

import nibabel
import numpy as np

from modelsgenesis.checkpoints.card import split_card

SMALL = "--steps 4 --set network.widths=8,16 --set patch_size=16,16,12 --set batch_size=2 --set workers=0"


def test_the_publisher_sees_what_would_be_sent_and_sends_it_privately(user, hub, ct_folder):
    scans = user.home / "scans"
    scans.mkdir()
    for path in ct_folder.iterdir():  # called after patients, as scans of a hospital often are
        shutil.copy(path, scans / f"Mueller_{path.name}")
    run = f"modelsgenesis pretrain scans --modality ct --output runs/chest {SMALL} --push-to-hub --set hub_model_id="
    assert "alice cannot write to hospital" in user.types(f"{run}hospital/chest", expect=1, HF_TOKEN="hf_alice").stderr
    assert not (user.home / "runs").exists()
    user.types(f"{run}clinic/chest", HF_TOKEN="hf_alice")
    repository = hub.repositories["clinic/chest"]
    assert repository.private
    assert {"README.md", "config.json", "model.safetensors"} < set(repository.files)
    assert not any("restoration" in path for path in repository.files)
    content = b"".join(blob.content for blob in repository.files.values())
    assert b"Mueller" not in content
    assert str(user.home).encode() not in content
    listed = user.types("modelsgenesis push runs/chest --hub-model-id clinic/chest --dry-run")
    assert re.search(r"figures/restorations\.png +[\d.]+ +picture: .*not sent, it may show patients", listed.stdout)
    front = split_card(repository.files["README.md"].content.decode()).front
    assert front["library_name"] == "modelsgenesis"


def test_a_colleague_downloads_it_and_finetunes(user, hub, decathlon):
    shutil.copytree(decathlon, user.home / "task")
    files = {name: (user.home / "runs/chest" / name).read_bytes() for name in ("config.json", "model.safetensors")}
    hub.add("clinic/chest", {**files, "README.md": b"# Ours\n"}, private=True)
    user.types("modelsgenesis download clinic/chest", expect=1)
    got = user.types("modelsgenesis download clinic/chest -o models/chest", HF_TOKEN="hf_bob").stdout.strip()
    assert json.loads((user.home / got / "config.json").read_text())["task"] == "restoration"
    assert "the network loads" in user.types("modelsgenesis verify models/chest").stdout
    typo = user.types("modelsgenesis finetune task --init models/chset", expect=1, HF_TOKEN="hf_bob")
    assert "did you mean models/chest?" in typo.stderr
    user.types(
        "modelsgenesis finetune task --init models/chest -o runs/seg --steps 4 --set patch_size=16,16,12"
        " --set batch_size=2 --set workers=0 --set bootstrap=20"
    )
    scan = next((user.home / "task" / "imagesTr").iterdir()).relative_to(user.home)
    user.types(f"modelsgenesis predict runs/seg {scan} -o label.nii.gz")
    label = nibabel.load(user.home / "label.nii.gz")
    assert hub.count("chset") == 0
    assert label.shape == nibabel.load(user.home / scan).shape
    assert set(np.unique(label.dataobj)) <= {0, 1, 2}
