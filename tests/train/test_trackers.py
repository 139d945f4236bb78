"""What hears of a training's steps and samples beside its own record: TensorBoard's events, and wandb."""

import importlib.util
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from lyco_core.commands.musubi_command import read_command, without
from lyco_core.errors import TrainError
from lyco_core.train.loop import Step
from lyco_core.train.musubi.answers import answered, own_options, require_answers
from lyco_core.train.options import SaveOptions, TrainOptions, train_options
from lyco_core.train.records import Records
from lyco_core.train.samples import Sample
from lyco_core.train.trackers import require_trackers, trackers_of

KEY = "0123456789" * 4


def options_of(*words: str) -> TrainOptions:
    settings, answers = answered(read_command(words).given)
    require_answers(answers)
    return train_options(own_options(settings))


def recorded(folder: Path, save: SaveOptions) -> None:
    """Two steps and a sample between them."""
    records = Records(str(folder / "x.jsonl"), trackers_of(save))
    records.add(Step(1, 1.0, 1e-4, 2.0), 0)
    frames = torch.arange(3, dtype=torch.uint8)[:, None, None, None].expand(3, 8, 8, 3)
    records.sampled(Sample(1, 0, "a cat", 3, (str(folder / "sample" / "x.webp"),), frames))
    records.add(Step(2, 0.5, 1e-4, 2.0, 0.25), 0)
    records.close()


def test_events_of_tensorboard(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """Where it is not installed, that is said."""
    recorded(tmp_path, SaveOptions(logging_dir=str(tmp_path / "logs"), log_prefix="mine-"))
    if importlib.util.find_spec("tensorboard") is None:
        assert "logging_dir needs tensorboard: pip install tensorboard; until then only NAME.jsonl" in caplog.text
        assert not (tmp_path / "logs").exists()
    else:
        (events,) = (tmp_path / "logs").glob("mine-*/events*")
        assert b"loss/current" in events.read_bytes()


def test_a_run_of_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """By wandb itself, which sends nothing; its files hold what was recorded, and no key."""
    wandb = pytest.importorskip("wandb", reason="wandb is not installed: pip install wandb")
    config = tmp_path / "tracker.toml"
    config.write_text('[wandb]\ntags = ["taggy"]\n')
    words = ["--log_with", "all", "--logging_dir", str(tmp_path / "logs"), "--log_prefix", "mine-"]
    words += ["--log_tracker_name", "projecty", "--wandb_run_name", "runny", "--log_tracker_config", str(config)]
    words += ["--wandb-api-key", KEY]
    monkeypatch.setattr(sys, "argv", ["lyco", *without(words, "wandb_api_key")])
    for name, value in (("MODE", "offline"), ("SILENT", "true"), ("API_KEY", KEY)):
        monkeypatch.setenv(f"WANDB_{name}", value)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    recorded(tmp_path, options_of(*words).save)
    wandb.teardown()  # its other process has written all by then
    (run,) = (tmp_path / "logs").glob("mine-*/wandb/offline-run-*/run-*.wandb")
    told = run.read_bytes()
    for text in (b"loss/current", b"loss/validation", b"norm/grad", b"sample_0", b"projecty", b"runny", b"taggy"):
        assert text in told, text
    assert len(list(run.parent.glob("files/media/images/sample_0_1_*.png"))) == 1
    for path in (path for path in tmp_path.rglob("*") if path.is_file()):
        assert KEY.encode() not in path.read_bytes(), path


def test_a_key_is_no_option_and_not_said_again():
    words = ["a.toml", "--wandb_api_key", KEY, "--seed", "1", f"--wandb-api-key={KEY}"]
    assert without(words, "wandb_api_key") == ["a.toml", "--seed", "1"]
    settings, answers = answered(read_command(words).given)
    assert KEY not in str([*answers, options_of(*words)])
    assert "wandb_api_key" not in own_options(settings)


def test_what_a_tracker_does_not_take_ends_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    def full(*_: object) -> None:
        raise OSError("no space left\non the device")

    records = Records(str(tmp_path / "x.jsonl"), [SimpleNamespace(name="wandb", add=full, show=full, close=full)])
    for number in (1, 2):
        records.add(Step(number, 1.0, 1e-4, 2.0), 0)
    records.close()
    assert caplog.text.count("wandb takes nothing more, training goes on: no space left\n") == 1
    assert len((tmp_path / "x.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("wandb = 1", r"t.toml: has wandb, expected the tables \[wandb\] and \[tensorboard\] alone"),
        ("[mlflow]\na = 1", r"t.toml: has mlflow, expected the tables"),
    ],
)
def test_what_is_wrong_is_said_before_the_training(text, message, tmp_path, monkeypatch):
    (tmp_path / "t.toml").write_text(text)
    with pytest.raises(TrainError, match=message):
        require_trackers(SaveOptions(log_tracker_config=str(tmp_path / "t.toml")))
    for name in ("tensorboard", "all"):
        with pytest.raises(TrainError, match=f"log_with is {name}, and TensorBoard's events have no logging_dir; give"):
            SaveOptions(log_with=name)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(TrainError, match="log_with is wandb, and wandb is not installed; pip install wandb, or leave"):
        require_trackers(SaveOptions(log_with="wandb"))
    assert os.listdir(tmp_path) == ["t.toml"]
