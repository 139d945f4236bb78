"""The loop on a small model of a flow: what is learned, what is drawn, and what is saved and resumed."""

import os
import pickle
import random
import re
import signal
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from lyco_testing.toy import WIDTH, ToyModel, described, z_image

from lyco_core.adapter_reader import load_adapter_set
from lyco_core.errors import FileError, TrainError
from lyco_core.train.batches import Batches, require_items, require_one_shape
from lyco_core.train.checkpoints import Checkpoints, require_place
from lyco_core.train.distributed import World
from lyco_core.train.items import Item
from lyco_core.train.loop import Step, Training
from lyco_core.train.metadata import Run
from lyco_core.train.network import Network
from lyco_core.train.options import train_options
from lyco_core.train.state import load_state, save_state
from lyco_core.train.targets import choose_targets

EVERYTHING = {
    "network_args": ["rank_dropout=0.2", "module_dropout=0.2"],
    "ema_decay": 0.9,
    "lr_scheduler": "cosine",
    "lr_warmup_steps": 3,
    "gradient_accumulation_steps": 2,
    "batch_size": 2,
    "caption_dropout_rate": 0.3,
}
"""Options on all of which the next step depends."""


def latent(seed: int, *size: int) -> torch.Tensor:
    return torch.randn(WIDTH, *(size or (4, 4)), generator=torch.Generator().manual_seed(seed))


ITEMS = [Item(latent(number), float(number), f"item {number}") for number in range(4)]


def training(
    items: Sequence[Item] = ITEMS, *, empty: object = -50.0, validation: Sequence[Item] = (), **settings: object
):
    """A training and its model; attach it with `steps`."""
    asked = {"network_module": "lokr", "network_dim": 3, "learning_rate": 1e-2, "timestep_sampling": "uniform"}
    options = train_options({**asked, "max_train_steps": 8, **settings})
    network = Network.initial(choose_targets(described(z_image()), options.network), options.network)
    return Training(ToyModel(), network, items, options, empty=empty, validation=validation)


def steps(made: Training, count: int | None = None) -> list[Step]:
    found: list[Step] = []
    assert isinstance(made.model, ToyModel)
    with made.network.attached(made.model.model):
        for step in made.steps():
            found.append(step)
            if len(found) == count:
                break
    return found


def numbers(made: Training) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in made.network.parameters()])


@pytest.mark.parametrize("algorithm", ["lora", "loha", "lokr"])
def test_it_learns(algorithm: str):
    made = training(
        validation=ITEMS,
        network_module=algorithm,
        network_dim=16,
        network_alpha=16,
        max_train_steps=150,
        batch_size=4,
        validate_every_n_steps=1,
    )
    found = [step.validation for step in steps(made)]
    assert found[-1] < 0.8 * found[0]


def test_a_seed_gives_the_same_and_another_another():
    one, same, other = (training(seed=seed, **EVERYTHING) for seed in (1, 1, 2))
    losses = [[step.loss for step in steps(made)] for made in (one, same, other)]
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]
    assert torch.equal(numbers(one), numbers(same))


def test_the_rest_of_the_program_draws_as_if_nothing_had_been():
    made = training(network_args=["rank_dropout=0.5"])
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    before = random.getstate()
    steps(made, 2)
    Run(made, [])
    assert torch.equal(torch.rand(2), expected)
    assert random.getstate() == before


def test_processes_of_one_batch_draw_what_one_process_draws():
    """Each rank's part of the loss and the gradients adds up to those of all: what `all_reduce` then does."""

    class Apart(World):
        """One of two processes, which is told of no other."""

        parts: list[torch.Tensor]

        def add_up(self, tensors):
            self.parts = [tensor.clone() for tensor in tensors]

    settings = {"max_train_steps": 1, "max_grad_norm": 0.0}
    whole = training(batch_size=4, **settings)
    with whole.network.attached(whole.model.model):
        loss = whole._batch(0)
        expected = [p.grad.clone() for p in whole.network.parameters()]
    parts = []
    for rank in range(2):
        made, world = training(batch_size=2, **settings), Apart(rank, 2)
        steps(Training(made.model, made.network, ITEMS, made.options, empty=-50.0, world=world))
        parts.append(world.parts)
    told, *gradients = [a + b for a, b in zip(*parts, strict=True)]
    assert float(told[0]) == pytest.approx(loss, rel=1e-5)
    for one, other in zip(gradients, expected, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-7)


def test_what_no_step_reaches_stays_as_it_is():
    """No weight decay, no momentum: the optimizer does not know of it."""
    made = training(network_args=["module_dropout=0.999999"], optimizer_args=["weight_decay=0.5"])
    before = numbers(made).clone()
    assert steps(made, 1)[0].grad_norm == 0
    assert torch.equal(numbers(made), before)


def test_gradients_are_shortened():
    made = training(max_grad_norm=1e-3, max_train_steps=1)
    (step,) = steps(made)
    assert step.grad_norm > 1e-3
    loose = training(max_grad_norm=0.0, max_train_steps=1)
    assert steps(loose)[0].grad_norm == pytest.approx(step.grad_norm)


def test_captions_are_dropped():
    made = training(caption_dropout_rate=1.0, batch_size=4, max_train_steps=3)
    steps(made)
    assert set(made.model.seen) == {-50.0}
    some = training(caption_dropout_rate=0.5, batch_size=4, max_train_steps=40)
    steps(some)
    assert some.model.seen.count(-50.0) == pytest.approx(80, abs=25)
    with pytest.raises(TrainError, match="caption_dropout_rate needs the conditioning of the empty caption"):
        training(empty=None, caption_dropout_rate=0.1)


def test_averages():
    made = training(ema_decay=0.5, max_train_steps=4)
    expected = numbers(made).clone()
    for number in range(1, 5):
        steps(made, 1)
        decay = min(0.5, (1 + number) / (10 + number))
        expected = decay * expected + (1 - decay) * numbers(made)
    last = numbers(made).clone()
    with made.as_saved():
        assert torch.allclose(numbers(made), expected, atol=1e-7)
    assert torch.equal(numbers(made), last)


def test_validation_does_not_depend_on_the_training():
    one, two = (training(validation=ITEMS, seed=seed, network_dim=dim) for seed, dim in ((1, 3), (2, 2)))
    assert one.validate() == two.validate()  # ΔW is 0 in both
    with pytest.raises(TrainError, match="validate_every_n_steps needs validation items"):
        training(validate_every_n_steps=3)


def test_validation_is_without_dropout():
    """What is tried is the network that a file gets, whole."""
    made = training(validation=ITEMS, network_args=["rank_dropout=0.5"], learning_rate=0.1, validate_every_n_steps=4)
    found = [step.validation for step in steps(made, 4)][-1]
    made.network.eval()
    with made.network.attached(made.model.model):
        assert {made.validate() for _ in range(3)} == {found}
        assert found != training(validation=ITEMS).validate()  # it has learned something, so that dropout would show
    made.network.train()
    with made.network.attached(made.model.model):
        assert made.validate() == found


def test_divergence_is_told_and_the_network_stays_finite():
    made = training(learning_rate=1e30, max_grad_norm=0.0, max_train_steps=20)
    with pytest.raises(TrainError, match=r"step \d+: the loss is .* training diverged: lower learning_rate"):
        steps(made)
    assert bool(torch.isfinite(numbers(made)).all())


FIVE = [*ITEMS, Item(latent(4), 4.0, "item 4")]


def test_steps_end_with_their_epoch():
    """Five items, two a step: every epoch has every item once, in steps of two, two and one."""
    made = training(FIVE, gradient_accumulation_steps=2, max_train_epochs=16)
    assert (made.steps_per_epoch, made.total_steps) == (3, 48)
    seen, sizes = [], []
    for _ in range(made.total_steps):
        steps(made, 1)
        sizes.append(len(made.model.seen) - len(seen))
        seen = list(made.model.seen)
    assert sizes == [2, 2, 1] * 16
    assert made.epoch == 16
    for epoch in range(16):
        assert sorted(seen[5 * epoch : 5 * epoch + 5]) == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert len({tuple(seen[5 * epoch : 5 * epoch + 5]) for epoch in range(16)}) > 10


def test_the_loss_of_an_epoch_s_last_step_is_the_mean_of_what_it_has():
    """Its gradients are divided as those of the others, as accelerate does; that is for its oracle to say."""
    settings = {"max_grad_norm": 0.0, "learning_rate": 0.0, "max_train_epochs": 1}
    alone = [step.loss for step in steps(training(FIVE, **settings))]
    pairs = [step.loss for step in steps(training(FIVE, gradient_accumulation_steps=2, **settings))]
    assert pairs == pytest.approx([(alone[0] + alone[1]) / 2, (alone[2] + alone[3]) / 2, alone[4]])


def test_resumed_within_an_epoch_of_uneven_steps(tmp_path: Path):
    settings = {"gradient_accumulation_steps": 2, "max_train_epochs": 3, "network_args": ["rank_dropout=0.2"]}
    through = training(FIVE, **settings)
    expected = steps(through)
    for count in (1, 2, 3, 5):
        first, resumed = training(FIVE, **settings), training(FIVE, **settings)
        steps(first, count)
        save_state(tmp_path / "a-state.pt", first)
        load_state(tmp_path / "a-state.pt", resumed)
        assert steps(resumed) == expected[count:]
        assert torch.equal(numbers(resumed), numbers(through))


@pytest.mark.parametrize(("items", "accumulated", "fits"), [(ITEMS, 2, True), (FIVE, 1, True), (FIVE, 2, False)])
def test_a_state_of_steps_that_crossed_epochs(items: list[Item], accumulated: int, fits: bool, tmp_path: Path):
    """Of version 2: it goes on where its steps were the same ones."""
    made, path = training(items, gradient_accumulation_steps=accumulated), tmp_path / "a-state.pt"
    steps(made, 2)
    save_state(path, made)
    torch.save(torch.load(path, weights_only=True) | {"version": 2}, path)
    other = training(items, gradient_accumulation_steps=accumulated)
    if fits:
        load_state(path, other)
        assert other.step == 2
    else:
        with pytest.raises(TrainError, match="steps of 2 batches went on across the end of an epoch of 5"):
            load_state(path, other)
        assert other.step == 0


def test_every_item_comes_as_often_as_it_is_to_and_shapes_never_mix():
    items = [
        Item(latent(0), 0.0),
        Item(latent(1, 4, 6), 0.0, repeats=3),
        Item(latent(2), 0.0, repeats=2),
        Item(latent(3, 4, 6), 0.0, batch_size=1),
    ]
    batches = Batches(items, 2, 1, seed=5)
    epochs = [[batches[e * len(batches) + i] for i in range(len(batches))] for e in range(3)]
    for epoch in epochs:
        assert sorted(index for batch in epoch for index in batch) == [0, 1, 1, 1, 2, 2, 3]
        for batch in epoch:
            assert len({items[index].latent.shape for index in batch}) == 1
            assert len(batch) <= 2
    assert epochs[0] != epochs[1]
    assert [Batches(items, 2, 1, seed=5)[i] for i in range(6)] == [batches[i] for i in range(6)]


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([], "the dataset is empty"),
        ([Item(torch.zeros(4), 0, "x")], r"x: the latent is \[4\], expected"),
        ([ITEMS[0], Item(latent(1, 4, 6), 0)], r"2 different shapes \(24x4x4, 24x4x6\); set enable_bucket"),
    ],
)
def test_items_that_cannot_be(items: list, message: str):
    with pytest.raises(TrainError, match=message):
        require_items(items)
        require_one_shape(items)


@pytest.mark.parametrize("optimizer", ["adamw", "adafactor"])
def test_resumed_it_is_the_uninterrupted_one(optimizer: str, tmp_path: Path):
    pytest.importorskip("transformers", reason="transformers is not installed") if optimizer == "adafactor" else None
    settings = EVERYTHING | {"max_train_steps": 9, "optimizer_type": optimizer}
    through = training(**settings)
    expected = steps(through)
    first = training(**settings)
    steps(first, 4)
    save_state(tmp_path / "a-state.pt", first)
    resumed = training(**settings)
    load_state(tmp_path / "a-state.pt", resumed)
    assert steps(resumed) == expected[4:]
    assert torch.equal(numbers(resumed), numbers(through))
    with through.as_saved(), resumed.as_saved():
        assert torch.equal(numbers(resumed), numbers(through))


class Trap:
    """Unpickled it would write a file."""

    def __reduce__(self):
        return os.system, ("touch trapped",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network_dim": 2}, "the state is of another network"),
        ({"network_module": "loha"}, "the state is of another network"),
        ({"optimizer_type": "adafactor"}, "has the state of adamw, optimizer_type is adafactor"),
        ({"ema_decay": 0.0}, "ema_decay was set when it was saved"),
        ({"seed": 8, "batch_size": 1}, "batch_size, seed changed since it was saved"),
        ({"discrete_flow_shift": 2.0}, "noise changed since it was saved"),
        ({"network_alpha": 2.0}, "network_alpha changed since it was saved"),
    ],
)
def test_another_training_s_state_is_refused(change: dict, message: str, tmp_path: Path):
    if "optimizer_type" in change:
        pytest.importorskip("transformers", reason="transformers is not installed")
    saved = training(**EVERYTHING)
    steps(saved, 2)
    save_state(tmp_path / "a-state.pt", saved)
    other = training(**EVERYTHING | change)
    before = numbers(other).clone()
    with pytest.raises(TrainError, match=f"a-state.pt: .*{message}"):
        load_state(tmp_path / "a-state.pt", other)
    assert torch.equal(numbers(other), before)
    assert other.step == 0


def test_files_that_are_no_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    made = training()
    (tmp_path / "text-state.pt").write_text("nothing")
    (tmp_path / "trap-state.pt").write_bytes(pickle.dumps(Trap()))
    torch.save({"trap": Trap()}, tmp_path / "torch-state.pt")
    torch.save([1], tmp_path / "list-state.pt")
    save_state(tmp_path / "cut-state.pt", made)
    whole = (tmp_path / "cut-state.pt").read_bytes()
    (tmp_path / "cut-state.pt").write_bytes(whole[: len(whole) // 2])
    for name in ("text", "trap", "torch", "list", "cut"):
        with pytest.raises(TrainError, match=f"{name}-state.pt: is no state of a training"):
            load_state(tmp_path / f"{name}-state.pt", made)
    assert not (tmp_path / "trapped").exists()
    with pytest.raises(TrainError, match=r"none.pt: there is no such file to resume from"):
        load_state(tmp_path / "none.pt", made)


def files(made: Training, folder: Path) -> Checkpoints:
    return Checkpoints(made, Run(made, []), folder)


def trained(folder: Path, **settings: object) -> list[str]:
    made = training(**{"batch_size": 2, "output_name": "x", **settings})
    saving = files(made, folder)
    with made.network.attached(made.model.model):
        for step in made.steps():
            saving.after(step)
    saving.finish()
    return sorted(path.name for path in folder.iterdir())


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
    with pytest.raises(FileError, match=r"file: cannot be made: File exists; name another output_dir"):
        require_place(tmp_path / "file", "x", resume=False)


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
    assert "x-step00000001-state.pt is no longer needed, but cannot be removed: Is a directory" in caplog.text


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


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimizer_type": "adamw8bit"}, "optimizer_type adamw8bit needs bitsandbytes, which cannot be imported"),
        ({"optimizer_args": ["beta=3"]}, "optimizer_args .*: adamw refuses them: .*beta"),
        ({"optimizer_args": ["betas"]}, "optimizer_args: 'betas' is none, expected NAME=VALUE"),
        ({"optimizer_args": ["weight_decay=much"]}, "optimizer_args: 'weight_decay=much' is none"),
        ({"optimizer_args": ["betas=0.9,"]}, "optimizer_args .*: adamw refuses them: tuple index out of range"),
        ({"optimizer_args": ["fused=True", "foreach=True"]}, "adamw refuses them: .fused. and .foreach. cannot"),
        ({"optimizer_args": ["lr=5.0"]}, r"optimizer_args has lr=5.0, which is the option learning_rate"),
        ({"output_name": "../x"}, r"output_name is '../x', expected a plain file name, without folders"),
        ({"output_name": "a\\x"}, "expected a plain file name"),
        ({"lr_warmup_steps": 2.5}, r"lr_warmup_steps is 2.5, expected a whole number of steps, or a part below 1"),
        ({"output_name": ""}, "output_name is empty"),
        ({"mixed_precision": "int8"}, "mixed_precision is 'int8', expected one of auto, no, bf16, fp16"),
    ],
)
def test_options_that_cannot_be(settings: dict, message: str):
    with pytest.raises(TrainError, match=message):
        training(**settings)


def test_optimizer_args_arrive():
    made = training(optimizer_args=["weight_decay=0.3", "betas=0.8,0.9"])
    assert made.optimizer.defaults["weight_decay"] == 0.3
    assert made.optimizer.defaults["betas"] == (0.8, 0.9)
