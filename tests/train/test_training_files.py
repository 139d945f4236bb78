"""What is saved when, kept and told, also where saving fails."""

import dataclasses
import json
import re
import signal
import tempfile
from pathlib import Path

import pytest
import torch
from lyco_testing.toy_training import steps, training

from lyco_core.adapter_reader import load_adapter_set
from lyco_core.errors import FileError
from lyco_core.train.loop import Step, Training
from lyco_core.train.metadata import Run
from lyco_core.train.records import Records
from lyco_core.train.state import save_state
from lyco_core.train.training_files import Saved, TrainingFiles, name_of, require_place


def files(made: Training, folder: Path) -> TrainingFiles:
    return TrainingFiles(made, Run(made, []), folder)


def trained(folder: Path, **settings: object) -> list[str]:
    made = training(**{"batch_size": 2, "output_name": "x", **settings})
    saving = files(made, folder)
    with made.network.attached(made.model.model):
        for step in made.steps():
            saving.after(step)
    saving.finish()
    return sorted(path.name for path in folder.iterdir() if path.name != "x.jsonl")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, []),
        ({"save_every_n_steps": 3}, ["-step00000003", "-step00000006"]),
        ({"save_every_n_steps": 2, "save_last_n_steps": 2}, ["-step00000004", "-step00000006"]),
        ({"save_every_n_epochs": 1}, ["-000001", "-000002", "-000003"]),
        ({"save_every_n_epochs": 1, "save_last_n_epochs": 2}, ["-000002", "-000003"]),
    ],
)
def test_what_is_saved_and_kept(settings: dict, expected: list[str], tmp_path: Path):
    """Eight steps, two an epoch."""
    assert trained(tmp_path, **settings) == sorted(f"x{ending}.safetensors" for ending in (*expected, ""))


def test_states_come_and_go_with_their_files(tmp_path: Path):
    (tmp_path / "x-step00000002-other.safetensors").write_bytes(b"somebody's")
    found = trained(tmp_path, save_every_n_steps=2, save_last_n_steps=2, save_state=True)
    stems = ["x", "x-step00000004", "x-step00000006"]
    theirs = "x-step00000002-other.safetensors"
    assert found == sorted([theirs, *(f"{s}{e}" for s in stems for e in ("-state.pt", ".safetensors"))])


def test_what_is_saved_is_the_average_with_its_story(tmp_path: Path):
    made = training(ema_decay=0.5, output_name="x", save_precision="fp32", training_comment="hello")
    steps(made)
    path = files(made, tmp_path).finish()
    found = load_adapter_set(path)
    with made.as_saved():
        expected = made.network.adapter_set()
    for name, adapter in expected.adapters.items():
        assert torch.equal(found.adapters[name].delta_weight(), adapter.delta_weight())
    assert found.metadata["ss_training_comment"] == "hello"
    assert found.metadata["ss_steps"] == found.metadata["ss_max_train_steps"] == "8"
    assert found.metadata["ss_optimizer"] == "torch.optim.adamw.AdamW"
    assert found.metadata["ss_seed"] == "42"
    assert found.metadata["ss_mixed_precision"] == "no"


def test_interrupted(tmp_path: Path):
    made = training(output_name="x")
    saving = files(made, tmp_path)
    assert saving.interrupted() == "nothing was trained yet"
    steps(made, 3)
    assert saving.interrupted() == "saved x-step00000003.safetensors and its state"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x-step00000003-state.pt", "x-step00000003.safetensors"]
    with pytest.raises(FileError, match=r"x-step00000003-state.pt is there already; choose another output_name"):
        require_place(tmp_path, "x", resume=False)
    require_place(tmp_path, "x", resume=True)
    require_place(tmp_path / "deep" / "er", "x-step", resume=False)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FileError, match=r"file: cannot be made: .*exists; name another output_dir"):
        require_place(tmp_path / "file", "x", resume=False)


def test_every_file_is_told_once_it_is_whole(tmp_path: Path, temporary: Path):
    made, told = training(output_name="x"), []
    saving = TrainingFiles(made, Run(made, []), tmp_path, told.append)
    steps(made, 2)
    adapter, state = (str(tmp_path / f"x-step00000002{ending}") for ending in (".safetensors", "-state.pt"))
    (tmp_path / "x-step00000002-state.pt" / "in it").mkdir(parents=True)
    assert "is a folder" in saving.interrupted()
    assert told[0] == Saved(2, adapter)
    assert Path(told[-1].state).parent.parent == temporary
    told.clear()
    (tmp_path / "x-step00000002-state.pt" / "in it").rmdir()
    (tmp_path / "x-step00000002-state.pt").rmdir()
    saving.interrupted()
    assert told == [Saved(2, adapter), Saved(2, adapter, state)]


def test_the_name_of_a_training_from_its_files():
    names = ["a/x-step00000002-state.pt", "x-000003-state.pt", "x-state.pt", "x.safetensors"]
    assert [name_of(name, "x") for name in names] == ["x"] * 4
    assert name_of("x-2-step00000002-state.pt", "x") == "x-2"
    assert name_of("x-202401-state.pt", "x-202401") == "x-202401"  # no epoch, though it looks like one
    assert name_of("y-state.pt", "x") is name_of("x.pt", "x") is None


@pytest.fixture
def temporary(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The system's folder of temporary files."""
    folder = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_a_save_that_fails_once_is_told_and_training_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """Here a folder is where the file should be."""
    (tmp_path / "x-step00000004.safetensors" / "in it").mkdir(parents=True)
    found = trained(tmp_path, save_every_n_steps=2)
    assert found == ["x-step00000002.safetensors", *(f"x-step0000000{n}.safetensors" for n in (4, 6)), "x.safetensors"]
    assert [r.getMessage() for r in caplog.records if "not saved" in r.getMessage()] == [
        "step 4 is not saved, training goes on: x-step00000004.safetensors: is a folder; give the name of a file"
    ]
    made, through = training(batch_size=2, save_every_n_steps=2), training(batch_size=2)
    assert steps(made) == steps(through)


def test_saves_that_always_fail(tmp_path: Path, temporary: Path, caplog: pytest.LogCaptureFixture):
    """The folder is gone: what comes last is elsewhere, whole."""
    made = training(batch_size=2, output_name="x", save_every_n_steps=2, save_last_n_steps=2)
    saving = files(made, tmp_path / "gone")
    with made.network.attached(made.model.model):
        for step in made.steps():
            assert saving.after(step) == []
    assert sum("is not saved, training goes on" in r.getMessage() for r in caplog.records) == 3
    with pytest.raises(FileError, match=r"x.safetensors: .*\. What was trained is in .*x.safetensors, with its state"):
        saving.finish()
    (folder,) = temporary.iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["x-state.pt", "x.safetensors"]
    assert load_adapter_set(folder / "x.safetensors").adapters.keys() == made.network.trainables.keys()
    assert re.search(rf"What was trained is in .*{made.step:08d}.safetensors", saving.interrupted())


def test_what_the_precision_cannot_hold_is_no_end_either(tmp_path: Path, temporary: Path):
    made = training(output_name="x", save_precision="fp16", learning_rate=0.0, save_every_n_steps=1, max_train_steps=3)
    with torch.no_grad():
        next(iter(made.network.parameters())).fill_(1e5)
    saving = files(made, tmp_path)
    for step in steps(made, 2):
        assert saving.after(step) == []
    with pytest.raises(FileError, match=r"its 100000 is beyond what float16 holds, 65504; .* What was trained is in"):
        saving.finish()
    (folder,) = temporary.iterdir()
    found = load_adapter_set(folder / "x.safetensors")
    assert max(float(t.abs().max()) for a in found.adapters.values() for t in a.tensors.values()) == 1e5


def test_an_old_file_that_cannot_be_removed(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """Here it is a folder, which no `remove` takes; the newer ones come and go as they should."""
    (tmp_path / "x-step00000001-state.pt").mkdir()
    found = trained(tmp_path, save_every_n_steps=2, save_last_n_steps=2)
    kept = [f"x-step0000000{n}.safetensors" for n in (4, 6)]
    assert found == ["x-step00000001-state.pt", *kept, "x.safetensors"]
    assert "x-step00000001-state.pt is no longer needed, but cannot be removed: " in caplog.text


def test_a_full_disk_leaves_what_was_saved_before(tmp_path: Path):
    resource = pytest.importorskip("resource", reason="this system knows no limits")
    made = training(output_name="x")
    saving = files(made, tmp_path)
    steps(made, 1)
    path = Path(saving.finish())
    before = path.read_bytes()
    steps(made, 1)
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(FileError, match=r"x.safetensors: cannot be written: .*; nothing is left of it"):
            saving.finish()
        with pytest.raises(FileError, match=r"s-state.pt: cannot be written"):
            save_state(tmp_path / "s-state.pt", made)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]


def test_every_step_is_a_line_beside_the_adapter(tmp_path: Path):
    """Of a run that goes on, the lines of the steps that it repeats give way to its own."""
    made = training(output_name="x", max_train_steps=4)
    saving = files(made, tmp_path)
    with made.network.attached(made.model.model):
        for step in made.steps():
            saving.after(step)
    lines = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert lines[3]["loss"] == step.loss
    assert lines[3]["grad_norm"] == step.grad_norm
    with (tmp_path / "x.jsonl").open("a") as file:
        file.write('{"step": 5, "loss"')
    records = Records(str(tmp_path / "x.jsonl"))
    records.add(dataclasses.replace(step, step=3, validation=0.5), 0)
    lines = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    assert [(line["step"], line.get("validation")) for line in lines] == [(1, None), (2, None), (3, 0.5)]


def test_what_cannot_be_recorded_ends_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    records = Records(str(tmp_path / "none" / "x.jsonl"))
    for number in (1, 2):
        records.add(Step(number, 1.0, 1e-4, 2.0), 0)
    assert caplog.text.count("steps are not recorded, training goes on") == 1


@pytest.mark.parametrize("kind", ["steps", "epochs"])
def test_states_may_go_before_their_adapters(kind: str, tmp_path: Path):
    names = trained(
        tmp_path, max_train_steps=6, save_state=True, **{f"save_every_n_{kind}": 1, f"save_last_n_{kind}_state": 1}
    )
    adapters = [name for name in names if re.fullmatch(r"x-(step)?\d+.safetensors", name)]
    states = [name for name in names if re.fullmatch(r"x-(step)?\d+-state.pt", name)]
    assert len(adapters) > len(states) == {"steps": 2, "epochs": 1}[kind]
    assert states[-1] == adapters[-1].replace(".safetensors", "-state.pt")


def test_a_state_at_the_end_alone(tmp_path: Path):
    names = trained(tmp_path, max_train_steps=2, save_every_n_steps=1, save_state_on_train_end=True)
    assert [name for name in names if name.endswith(".pt")] == ["x-state.pt"]
