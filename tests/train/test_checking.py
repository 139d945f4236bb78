"""What is refused before anything is loaded or encoded."""

from pathlib import Path

import pytest
import torch
from lyco_testing.absent import hide
from lyco_testing.toy import WIDTH, ToyModel, described, z_image

from lyco_core.architectures.registry import ARCHITECTURES
from lyco_core.errors import LycoError
from lyco_core.train.checking import require_possible
from lyco_core.train.items import Item
from lyco_core.train.loop import Training
from lyco_core.train.network import Network
from lyco_core.train.options import train_options
from lyco_core.train.state import save_state
from lyco_core.train.targets import choose_targets


def possible(
    folder: Path, *, family: str | None = "z_image", told: bool = True, processes: int = 1, **settings: object
):
    options = train_options({"network_module": "lokr", **settings})
    known = ARCHITECTURES[family] if family else None
    return require_possible(options, known, folder, empty=told, validation=told, processes=processes)


def state(path: Path, **settings: object) -> str:
    """Of a training of one step."""
    options = train_options({"network_module": "lokr", "network_dim": 2, **settings})
    network = Network.initial(choose_targets(described(z_image()), options.network), options.network)
    made = Training(ToyModel(), network, [Item(torch.zeros(WIDTH, 2, 2), 0.0)], options)
    with network.attached(made.model.model):
        next(iter(made.steps()))
    save_state(path, made)
    return str(path)


def test_what_is_possible(tmp_path: Path):
    settings = {"lr_scheduler": "polynomial", "caption_dropout_rate": 0.1, "validate_every_n_steps": 1}
    assert possible(tmp_path / "new" / "folder", **settings)[0].id == "z_image"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["folder"]
    assert not list((tmp_path / "new" / "folder").iterdir())
    (tmp_path / "adapter.safetensors").write_bytes(b"")
    resume = state(tmp_path / "a-state.pt")
    possible(tmp_path, resume=resume)
    for count in ("auto", 0, "0"):
        possible(tmp_path, resume=resume, shard_blocks=True, blocks_to_swap=count, processes=2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"family": None}, "the model's architecture is unknown"),
        ({"family": "pixart"}, "its adapters are used here but not trained"),
        ({"optimizer_type": "prodigy"}, "optimizer_type prodigy needs prodigyopt, which cannot be imported"),
        ({"optimizer_args": ["beta=3"]}, "adamw refuses them: .*beta"),
        ({"optimizer_args": ["lr=5.0"]}, "optimizer_args has lr=5.0"),
        ({"lr_scheduler": "polynomial", "learning_rate": 1e-8}, "polynomial ends at 1e-07"),
        ({"told": False, "caption_dropout_rate": 0.1}, "caption_dropout_rate needs the conditioning of the empty"),
        ({"told": False, "validate_every_n_steps": 5}, "validate_every_n_steps needs validation items"),
        ({"output_name": "taken"}, "taken-000003.safetensors is there already; choose another output_name"),
        ({"shard_blocks": True}, "this one is alone; start it with torchrun, or set shard_blocks to false"),
        (
            {"shard_blocks": True, "processes": 2, "blocks_to_swap": 3},
            "blocks_to_swap is 3, and shard_blocks leaves no",
        ),
        ({"resume": "none.pt"}, "none.pt: there is no such file to resume from"),
    ],
)
def test_what_is_not(settings: dict, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    hide(monkeypatch, "prodigyopt")
    (tmp_path / "taken-000003.safetensors").write_bytes(b"")
    with pytest.raises(LycoError, match=message):
        possible(tmp_path, **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"family": "wan"}, "a-state.pt: is the state of a training of z_image, the model is wan"),
        ({"optimizer_args": ["eps=1e-6"]}, r"a-state.pt: has the state of optimizer_args \[\], now \['eps=1e-6'\]"),
        ({"ema_decay": 0.9}, "a-state.pt: ema_decay was 0 when it was saved; set it back"),
    ],
)
def test_states_of_other_trainings(settings: dict, message: str, tmp_path: Path):
    with pytest.raises(LycoError, match=message):
        possible(tmp_path, resume=state(tmp_path / "a-state.pt"), **settings)


def test_a_state_that_lacks_something(tmp_path: Path):
    path = Path(state(tmp_path / "a-state.pt"))
    torch.save({"version": 3}, path)
    with pytest.raises(LycoError, match=r"a-state.pt: is an incomplete state of a training .*architecture"):
        possible(tmp_path, resume=str(path))


def test_a_folder_that_cannot_be(tmp_path: Path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(LycoError, match=r"file: cannot be made: [^;]*; name another output_dir"):
        possible(tmp_path / "file")
    (tmp_path / "x-step00000000-state.pt").mkdir()
    with pytest.raises(LycoError, match=r"x-step00000000-state.pt is there already"):
        possible(tmp_path, output_name="x")
