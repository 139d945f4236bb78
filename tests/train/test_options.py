"""Options that are told, checked and saved as they say of themselves."""

from pathlib import Path

import pytest
import torch
from lyco_testing.absent import hide
from lyco_testing.option_table import PAGES
from lyco_testing.toy_training import steps, training

from lyco_core.errors import TrainError
from lyco_core.train.memory_options import MemoryOptions
from lyco_core.train.metadata import Run, model_spec
from lyco_core.train.musubi.table import ROWS
from lyco_core.train.network_options import parse_network_args
from lyco_core.train.option import Option, Saved
from lyco_core.train.options import every_option, train_options

ROOT = Path(__file__).parents[2]


def test_the_help_pages_list_every_option():
    """`python tools/option_tables.py` writes them there."""
    lacking = [name for name, (_, made) in PAGES.items() if made() not in (ROOT / "web/docs" / name).read_text("utf-8")]
    assert len(PAGES) == 3
    assert lacking == []


def test_every_option_is_told_in_a_sentence():
    names = [option.called for _, option in every_option()]
    assert len(set(names)) == len(names)
    assert not set(names) & ROWS.keys()
    for _, option in every_option():
        assert option.help.endswith("."), option.name
        assert option.rule.holds(option.default), option.name
        assert option.rule.holds(option.node_default), option.name


SAVED = [(part, option) for part, option in every_option() if option.saved is not Saved.NOT]


@pytest.mark.parametrize(("part", "option"), SAVED, ids=[option.name for _, option in SAVED])
def test_every_option_stands_in_the_metadata_as_it_says(part: str, option: Option):
    """With its default, and with another value."""
    value = VALUES.get(option.name, option.default + 1 if isinstance(option.default, (int, float)) else "lyco")
    algorithm = {"network_module": "lora"} if option.name == "loraplus_lr_ratio" else {}
    plain, changed = (training(**algorithm, **more) for more in ({option.name: None}, {option.name: value}))
    given = getattr(getattr(changed.options, part), option.name)
    assert given != option.default
    name = option.name.removeprefix("metadata_")
    if option.saved is Saved.NETWORK_ARG:
        assert changed.options.network.network_args()[name] == str(list(given) if isinstance(given, tuple) else given)
        assert name == "factor" or name not in plain.options.network.network_args()
        texts = [f"{name}={changed.options.network.network_args()[name]}"]
        assert parse_network_args(texts) == {name: given}
    elif option.saved is Saved.MODELSPEC:
        assert getattr(model_spec(changed), name) == given
        assert getattr(model_spec(plain), name) == ("adapter" if name == "title" else None)
    elif option.saved is not Saved.NETWORK:  # which `save_network` writes in any case; see test_saving
        before, after = (Run(made, []).metadata().get(f"ss_{name}") for made in (plain, changed))
        unset = {Saved.ALWAYS: str(getattr(getattr(plain.options, part), name)), Saved.OR_NONE: "None"}
        assert (before, after) == (unset.get(option.saved), str(given))


VALUES = {
    "network_reg_dims": (".*attention.*=2",),
    "network_reg_lrs": (".*attention.*=0.001",),
    "lr_scheduler_type": "torch.optim.lr_scheduler.LinearLR",
    "loss_type": "l1",
    "huber_schedule": "constant",
    "timestep_sampling": "logsnr",
    "weighting_scheme": "cosmap",
    "lr_scheduler": "linear",
    "gradient_checkpointing": False,
    "verbose": True,
    "bypass_mode": True,
    "exclude_patterns": [".*w1"],
    "include_patterns": [".*w1"],
    "network_dropout": 0.5,
    "rank_dropout": 0.5,
    "module_dropout": 0.5,
    "ema_decay": 0.5,
    "fp8_base": True,
    "offload_inactive_dit": True,
    "fp8_scaled": True,
    "gradient_checkpointing_cpu_offload": True,
    "factor": 2,
}


@pytest.mark.parametrize(("given", "kept"), [(16, 16), ("16", 16), ("auto", "auto"), (0, 0)])
def test_blocks_to_swap_is_musubis_number_or_auto(given: object, kept: object):
    assert train_options({"blocks_to_swap": given}).memory.blocks_to_swap == kept
    assert train_options({}).memory.blocks_to_swap == "auto"


@pytest.mark.parametrize("given", [-1, 1.5, True, "many", "-1", None, ""])
def test_blocks_to_swap_is_nothing_else(given: object):
    with pytest.raises(TrainError, match=r"blocks_to_swap is .*, expected auto or a whole number of at least 0"):
        MemoryOptions(blocks_to_swap=given)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("name", ["network_module", "algorithm"])
def test_the_algorithm_by_both_names(name: str):
    assert train_options({name: "lokr"}).network.algorithm == "lokr"
    assert train_options({"network_module": "networks.lora_wan"}).network.algorithm == "lora"
    with pytest.raises(TrainError, match=f"{name} is 'oft', expected one of"):
        train_options({name: "oft"})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimizer_type": "adamw8bit"}, "optimizer_type adamw8bit needs bitsandbytes, which cannot be imported"),
        ({"optimizer_args": ["beta=3"]}, "optimizer_args .*: adamw refuses them: .*beta"),
        ({"optimizer_args": ["betas"]}, "optimizer_args: 'betas' cannot be read, expected NAME=VALUE"),
        ({"optimizer_args": ["weight_decay=much"]}, "optimizer_args: 'weight_decay=much' cannot be read"),
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
def test_options_that_cannot_be(settings: dict, message: str, monkeypatch: pytest.MonkeyPatch):
    hide(monkeypatch, "bitsandbytes")
    with pytest.raises(TrainError, match=message):
        training(**settings)


def test_optimizer_args_arrive():
    made = training(optimizer_args=["weight_decay=0.3", "betas=0.8,0.9"])
    assert made.optimizer.defaults["weight_decay"] == 0.3
    assert made.optimizer.defaults["betas"] == (0.8, 0.9)


class Halving(torch.optim.SGD):
    """As schedule-free optimizers do, what it moves is twice what is to be used."""

    def train(self) -> None:
        self._scale(2.001)  # a way back that rounds, only more

    def eval(self) -> None:
        self._scale(0.5)

    @torch.no_grad()
    def _scale(self, factor: float) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.mul_(factor)


@pytest.mark.parametrize(
    ("name", "cls"),
    [
        ("AdamW", torch.optim.AdamW),
        ("SGD", torch.optim.SGD),
        ("torch.optim.RAdam", torch.optim.RAdam),
        ("torch.optim.adamax.Adamax", torch.optim.Adamax),
    ],
)
def test_an_optimizer_by_any_name(name: str, cls: type):
    assert type(training(optimizer_type=name).optimizer) is cls


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("adamw9bit", "optimizer_type is 'adamw9bit', expected one of adamw, .*, or the path of a class, such as"),
        ("schedulefree.AdamWScheduleFree", "needs schedulefree, which cannot be imported .*: pip install schedulefree"),
        ("torch.optim.Nonsense", "optimizer_type torch.optim.Nonsense: torch.optim has no Nonsense"),
        ("torch.nn.Linear", "optimizer_type torch.nn.Linear is no optimizer of torch's kind; choose adamw"),
    ],
)
def test_an_optimizer_that_is_none(name: str, message: str, monkeypatch: pytest.MonkeyPatch):
    hide(monkeypatch, "schedulefree")
    with pytest.raises(TrainError, match=message):
        training(optimizer_type=name)


def test_an_optimizer_that_moves_others_than_are_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(torch.optim, "Halving", Halving, raising=False)
    made = training(optimizer_type="Halving", lr_scheduler="linear")
    (parameter, *_) = (p for p in made.network.parameters() if p.requires_grad and bool(p.any()))
    moved = parameter.detach().clone()
    with made.as_saved():
        assert torch.equal(parameter, moved / 2)
    assert torch.equal(parameter, moved)
    assert "Halving has no use for lr_scheduler and lr_warmup_steps" in caplog.text
    assert {step.learning_rate for step in steps(made, 3)} == {made.options.optimizer.learning_rate}
