"""Options that are right, in Musubi's spelling and our own, and each way to get one wrong."""

import pytest

from lyco_core.errors import TrainError
from lyco_core.train.network_options import NetworkOptions, algorithm_of, parse_network_args
from lyco_core.train.options import train_options


def test_defaults_are_musubis():
    options = NetworkOptions("lokr")
    assert (options.network_dim, options.network_alpha, options.factor) == (4, 1.0, -1)
    assert (options.rank_dropout, options.module_dropout, options.network_dropout) == (0, 0, 0)
    assert options.alpha == 1.0
    assert NetworkOptions("lokr", 16, 0).alpha == 16.0  # as in Musubi


WRONG = {
    "an unknown algorithm": ({"algorithm": "oft"}, "algorithm is 'oft', expected one of lora, loha, lokr"),
    "a rank of 0": ({"network_dim": 0}, "network_dim is 0, expected a whole number of at least 1"),
    "half a rank": ({"network_dim": 4.5}, "network_dim is 4.5"),
    "an alpha below 0": ({"network_alpha": -1.0}, "network_alpha is -1.0, expected a finite number of at least 0"),
    "an alpha that is none": ({"network_alpha": float("nan")}, "network_alpha is nan"),
    "an alpha in words": ({"network_alpha": "16"}, "network_alpha is '16', expected a finite number"),
    "a factor of 0": ({"factor": 0}, "factor is 0, expected a whole number but 0"),
    "half a factor": ({"factor": 4.0}, "factor is 4.0, expected a whole number"),
    "a certain rank_dropout": ({"rank_dropout": 1.0}, "rank_dropout is 1.0, expected .* less than 1"),
    "a negative module_dropout": ({"module_dropout": -0.1}, "module_dropout is -0.1, expected a finite number"),
    "a network_dropout that is none": ({"network_dropout": float("nan")}, "network_dropout is nan"),
    "a pattern that does not compile": (
        {"exclude_patterns": [".*", "(ffn"]}, r"exclude_patterns: '\(ffn' is no regular expression: missing \)",
    ),
    "a pattern that is a number": ({"include_patterns": [3]}, r"include_patterns is \[3\], expected a list of texts"),
    "one text for a list": ({"exclude_patterns": ".*"}, "exclude_patterns is '.*', expected a list of"),
    "no rank behind a pattern": ({"network_reg_dims": [".*ffn.*"]}, r"network_reg_dims is \['.*ffn.*'\], expected"),
    "a rank of half by pattern": ({"network_reg_dims": [".*=0.5"]}, "list of PATTERN=NUMBER with a whole number"),
    "a rank of 0 by pattern": ({"network_reg_dims": [".*=0"]}, "with a whole number of at least 1"),
    "a rate below 0": ({"network_reg_lrs": [".*=-1e-4"]}, "with a finite number of at least 0"),
    "a rate's pattern": ({"network_reg_lrs": ["(ffn=1e-4"]}, r"network_reg_lrs: '\(ffn' is no regular expression"),
    "a LoRA+ ratio below 0": ({"algorithm": "lora", "loraplus_lr_ratio": -1}, "loraplus_lr_ratio is -1, expected"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_refused(name: str):
    wrong, message = WRONG[name]
    with pytest.raises(TrainError, match=message):
        NetworkOptions(**{"algorithm": "lokr"} | wrong)


def test_pairs_as_sd_scripts_writes_them_and_as_a_list():
    pairs = ("img_attn.*=8", "a=b=4")
    for text in ("img_attn.*=8, a=b=4", "['img_attn.*=8', 'a=b=4']"):
        assert parse_network_args([f"network_reg_dims={text}"]) == {"network_reg_dims": pairs}
    options = NetworkOptions(network_reg_dims=pairs, network_reg_lrs=["x=1e-3", ".*=2e-3"], loraplus_lr_ratio=4)
    assert options.ranks(["img_attn.0", "a=b", "img_mlp"]) == {"img_attn.0": 8, "a=b": 4}
    assert options.rates(["x", "y"]) == {"x": 1e-3, "y": 2e-3}  # the first that matches
    assert options.all_rates(1e-3) == [1e-3, 2e-3, 4e-3, 8e-3]


@pytest.mark.parametrize(
    ("module", "algorithm"),
    [("networks.loha", "loha"), ("networks.lokr", "lokr"), ("networks.lora_wan", "lora"), ("lora", "lora")],
)
def test_network_module(module: str, algorithm: str):
    assert algorithm_of(module) == algorithm


@pytest.mark.parametrize("module", ["lycoris.kohya", "networks.oft", None])
def test_network_module_that_is_none(module: str | None):
    with pytest.raises(TrainError, match=r"network_module is .*, expected one of networks\.lora, networks\.loha"):
        algorithm_of(module)


def test_network_args():
    texts = ["factor=4", "rank_dropout=0.1", "exclude_patterns=[r'.*(?=ffn).*', '.*o']", "verbose=True"]
    assert parse_network_args(texts) == {
        "factor": 4,
        "rank_dropout": 0.1,
        "exclude_patterns": (".*(?=ffn).*", ".*o"),
        "verbose": True,
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("use_tucker=True", "'use_tucker=True' is no option that it takes; expected NAME=VALUE with one of factor,"),
        ("factor", "'factor' is no option that it takes"),
        ("factor=4.0", "'factor=4.0' cannot be read; expected a whole number"),
        ("rank_dropout=a", "cannot be read; expected a number"),
        ("exclude_patterns=.*", "cannot be read; expected a list of texts"),
        ("exclude_patterns='.*'", "cannot be read; expected a list of texts"),
        ("verbose=yes", "cannot be read; expected True or False"),
    ],
)
def test_network_args_that_are_none(text: str, message: str):
    with pytest.raises(TrainError, match=message):
        parse_network_args([text])


def test_a_configuration_in_musubis_words():
    found = train_options(
        {
            "network_module": "networks.lokr",
            "network_dim": 16,
            "network_alpha": 8,
            "network_dropout": None,
            "network_args": ["factor=8", "include_patterns=['.*norm.*']"],
            "seed": 7,
        }
    )
    assert found.network == NetworkOptions("lokr", 16, 8, factor=8, include_patterns=(".*norm.*",), seed=7)
    with pytest.raises(TrainError, match="network_module is 'networks"):
        train_options({"network_module": "networks.oft"})
    with pytest.raises(TrainError, match="there is no option network_rank"):
        train_options({"network_rank": 3})
    with pytest.raises(TrainError, match="no option learning_rat; do you mean learning_rate"):
        train_options({"learning_rat": 3})
    with pytest.raises(TrainError, match="metadata_reso is an option of Musubi Tuner that is not supported here"):
        train_options({"metadata_reso": "512"})
    with pytest.raises(TrainError, match=r"network_args is 'factor=4', expected a list"):
        train_options({"network_args": "factor=4"})


def test_network_args_are_told_as_musubi_would_take_them():
    options = NetworkOptions("lokr", 16, rank_dropout=0.1, exclude_patterns=[".*o"], verbose=True)
    told = options.network_args()
    assert told == {"factor": "-1", "rank_dropout": "0.1", "exclude_patterns": "['.*o']", "verbose": "True"}
    again = parse_network_args(f"{name}={value}" for name, value in told.items())
    assert NetworkOptions("lokr", 16, **again) == options
    assert NetworkOptions("loha").network_args() == {}
