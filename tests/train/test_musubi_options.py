"""Musubi Tuner's command lines and configurations: every option has an answer, and what it names is what is trained."""

from pathlib import Path

import pytest
import torch

from lyco_core.cli import main
from lyco_core.commands.musubi_command import read_command
from lyco_core.errors import TrainError
from lyco_core.train.musubi.answers import (
    answered,
    edition,
    flattened,
    known,
    notes_of,
    option_words,
    own_options,
    require_answers,
    takes,
)
from lyco_core.train.musubi.scripts import SCRIPTS
from lyco_core.train.musubi.table import ROWS, Fate
from lyco_core.train.options import train_options

WAN = """accelerate launch --num_cpu_threads_per_process 1 --mixed_precision bf16 src/musubi_tuner/wan_train_network.py
    --task t2v-1.3B --dit wan.safetensors --vae vae.pth --t5 umt5.safetensors --dataset_config sets.toml --sdpa
    --optimizer_type adamw --optimizer_args weight_decay=0.1 betas=0.9,0.95 --learning-rate=2e-4
    --gradient_checkpointing --max_data_loader_n_workers 2 --persistent_data_loader_workers
    --network_module networks.lokr --network_dim 32 --network_args factor=4 rank_dropout=0.1 --logit_mean -0.5
    --timestep_sampling shift --discrete_flow_shift 3.0 --max_train_epochs 16 --save_every_n_epochs 1 --seed 42
    --output_dir out --output_name name-of-lora"""


def fates(*words: str) -> dict[str, str]:
    asked = read_command(words)
    return {answer.name: str(answer) for answer in answered(asked.given, asked.script)[1]}


def test_a_command_of_musubi_is_the_options_that_it_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    asked = read_command(WAN.split())
    assert (asked.script, asked.config, asked.check) == ("wan_train_network", "", False)
    settings, answers = answered(asked.given, asked.script)
    require_answers(answers)
    files = [str(tmp_path / name) for name in ("wan.safetensors", "vae.pth", "umt5.safetensors", "sets.toml", "out")]
    places = ["dit", "vae", "text_encoder", "dataset_config", "output_dir"]
    assert [settings[name] for name in places] == [*files[:2], [files[2]], *files[3:]]
    options = train_options(own_options(settings))
    assert (options.network.algorithm, options.network.network_dim, options.network.factor) == ("lokr", 32, 4)
    assert options.optimizer.optimizer_args == ("weight_decay=0.1", "betas=0.9,0.95")
    assert (options.optimizer.learning_rate, options.noise.logit_mean) == (2e-4, -0.5)
    assert (options.run.mixed_precision, options.run.max_train_epochs) == ("bf16", 16)  # the former is the launcher's
    assert notes_of(answers)[0] == "task: nothing to do here: the model's file tells it"


def test_what_encodes_texts_is_one_list():
    asked = read_command(["--text_encoder1", "t5.safetensors", "--text_encoder2", "l.safetensors"])
    found = answered(asked.given, "flux_kontext_train_network")[0]["text_encoder"]
    assert [Path(path).name for path in found] == ["t5.safetensors", "l.safetensors"]
    found = answered({"byt5": "b", "text_encoder": "q"}, "hv_1_5_train_network")[0]
    assert found == {"text_encoder": ["q", "b"]}


@pytest.mark.parametrize(
    ("words", "name", "answer"),
    [
        ("--sdpa", "sdpa", "nothing to do here because ComfyUI chooses the kernel of its attention"),
        ("--t5 x.safetensors", "t5", "mapped to text_encoder"),
        ("--learning_rate 1e-3", "learning_rate", "as it is"),
        ("--learning_rate much", "learning_rate", "refused because learning_rate is 'much', expected a fin"),
        ("--network_args conv_dim=4", "network_args", "refused because network_args: 'conv_dim=4' is for convolutions"),
        ("--network_args convdim=4", "network_args", "refused because network_args: 'convdim=4' is no option"),
        ("hidream_o1_train_network.py --noise_scale_end 8.0 --task i2i", "noise_scale_end", "as it is"),
        ("hidream_o1_train_network.py --task i2i", "task", "as it is"),
        ("--model_type Dev", "model_type", "as it is"),
        ("--model_type distilled", "model_type", "refused because the types are full and dev"),
        ("--learning_rat 1", "learning_rat", "refused because there is no option learning_rat; do you mean learning_r"),
        ("--banana 1 2", "banana", "refused because there is no option banana; the help page lists them all"),
        ("--sample_prompts p.txt --sample_at_first", "sample_prompts", "as it is"),
        ("--log_with wandb --wandb_run_name x", "log_with", "as it is"),
        ("--wandb_api_key x", "wandb_api_key", "as it is"),
        ("--task i2v-14B", "task", "nothing to do here because the model's file tells it"),
        ("--task t2v-14B", "task", "nothing to do here because the model's file tells it"),
        ("--dit a.PT", "dit", "refused because a.PT is a pickle: name the safetensors file"),
        ("--t5 models_t5.pth", "t5", "refused because models_t5.pth is a pickle, with other names"),
        ("--scale_weight_norms=0", "scale_weight_norms", "as it is"),
        ("wan_train_network.py --byt5 b", "byt5", "refused because wan_train_network.py has no such option"),
        ("fpack_train_network.py", "fpack_train_network.py", "refused because ComfyUI has no FramePack model"),
        ("krea2_train_network.py", "krea2_train_network.py", "as it is"),
        ("qwen_image_train.py", "qwen_image_train.py", "refused because it trains the whole model"),
        ("wan_cache_latents.py", "wan_cache_latents.py", "refused because lyco train encodes and caches by itself"),
        ("train.py", "train.py", "refused because it is no script of Musubi Tuner that trains"),
    ],
)
def test_every_option_has_an_answer(words: str, name: str, answer: str):
    assert fates(*words.split())[name].startswith(answer)


def test_a_refusal_is_one_line_that_names_all():
    with pytest.raises(
        TrainError,
        match=r"^metadata_reso is an option of Musubi Tuner that is .*: modelspec.*; so are banana; answered",
    ):
        require_answers(answered({"metadata_reso": "a", "banana": 1, "seed": 2})[1])


def test_sections_and_dashes_of_a_configuration():
    found = flattened({"optimizer": {"learning-rate": 1}, "seed": 2, "datasets": [], "general": {"resolution": 3}})
    assert found == {"learning_rate": 1, "seed": 2, "datasets": [], "general": {"resolution": 3}}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--learning_rate", "--learning_rate needs a value"),
        ("--dit --sdpa", "--dit needs a value"),
        ("a.toml b.toml", "b.toml: one argument too many; a.toml is the configuration already"),
        ("a.toml --config_file b", "both a.toml and --config_file b are named; name one of them"),
    ],
)
def test_words_that_are_no_command(words: str, message: str):
    with pytest.raises(TrainError, match=message):
        read_command(words.split())


def test_the_table_is_of_options_that_are_none_here():
    assert not set(known()) & ROWS.keys()
    assert not [name for name in (*known(), *ROWS) if takes(name) is None]
    kinds = {script.kind for script in SCRIPTS.values()} | {"*"}
    for name, row in ROWS.items():
        assert set(row.kinds) <= kinds, name
        assert row.why in known() if row.fate is Fate.MAPPED else row.why[:1].isalpha() and row.why[-1] != ".", name


def checked(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, list[str], str]:
    status = main(["train", "--check-options", *words])
    told = capsys.readouterr()
    return status, told.out.splitlines(), told.err


def test_options_are_told_without_a_file(capsys: pytest.CaptureFixture[str]):
    status, lines, error = checked(capsys, *WAN.split())
    assert (status, error) == (0, "")
    told = dict(line.split("  ", 1) for line in lines)
    assert told["accelerate --mixed_precision"].strip().startswith("mapped to the script's mixed_precision")
    assert told["wan_train_network.py"].strip() == told["network_args"].strip() == "as it is"
    assert told["t5"].strip() == "mapped to text_encoder"
    assert told["save_precision"].strip() == "not given: bf16 here, fp32 in Musubi Tuner"
    status, lines, error = checked(capsys, *WAN.split(), "--metadata_reso", "p", "--learning_rat", "1")
    assert (status, error) == (1, "lyco: error: refused: metadata_reso, learning_rat\n")
    assert next(line for line in lines if line.startswith("metadata_reso")).endswith("is the family's")
    status, _, error = checked(capsys, "--lr_scheduler_args", "step_size=3")
    assert status == 1
    assert "lr_scheduler_args ['step_size=3'] are for lr_scheduler_type, which is empty" in error


def test_timesteps_are_shown_without_a_file(capsys: pytest.CaptureFixture[str]):
    """1000 of 25, twice; of the places of shift 3 in a normal's sigmoid those near 0 are rare."""
    status = main(["train", "wan_train_network.py", "--show_timesteps", "image", "--timestep_sampling", "auto"])
    told = capsys.readouterr().out.splitlines()
    assert (status or 0, len(told)) == (0, 82)
    assert told[0] == "timestep_sampling shift, 100000 timesteps drawn for 1024 x 1024 pixels:"
    shares = [float(line.split()[-2 if line.endswith("#") else -1].removesuffix("%")) for line in told[1:41]]
    assert sum(shares) == pytest.approx(100, abs=0.3)
    normal = torch.distributions.Normal(0.0, 1.0)
    edges = torch.arange(1, 40) / 40
    below = normal.cdf(torch.logit(edges / (3 - 2 * edges)))
    expected = torch.diff(below, prepend=torch.zeros(1), append=torch.ones(1)) * 100
    assert torch.tensor(shares).sub(expected).abs().max() < 0.25
    assert main(["train", "--show_timesteps", "console", "--timestep_sampling", "auto"]) == 1
    assert "timestep_sampling is auto, which depends on the model's family" in capsys.readouterr().err


def test_a_configuration_and_the_command_line_over_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "a.toml").write_text("[one]\nlearning-rate = 3\nsdpa = true\nfp8_base = false\nmetadata_reso = 'a'\n")
    status, lines, _ = checked(capsys, str(tmp_path / "a.toml"), "--metadata_reso", "")
    assert status == 0
    assert [line.split()[0] for line in lines][:4] == ["learning_rate", "sdpa", "fp8_base", "metadata_reso"]
    assert checked(capsys, "--config_file", str(tmp_path / "a"))[0] == 1
    status, lines, _ = checked(capsys, "--config_file", "none")
    assert (status, lines[-1]) == (0, "none.toml: is not there, so what it says is not told")


def test_datasets_of_a_configuration_are_told_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    config = tmp_path / "a.toml"
    for entry, expected in (
        ("image_directory = 'none'\ncontrol_directory = 'b'\ncontrol_resolution = 1024", 0),
        ("video_directory = 'a'\nfp_1f_target_index = 9", 1),
    ):
        config.write_text(f"seed = 1\n[[datasets]]\n{entry}\n")
        status, lines, error = checked(capsys, str(config))
        assert (status, [line.split(maxsplit=1) for line in lines[:2]]) == (
            expected,
            [["seed", "as it is"], ["datasets", "as it is"]],
        )
        assert ("fp_1f_target_index is not supported here: it is of training one frame" in error) == bool(expected)


def test_editions_of_qwen_image(capsys: pytest.CaptureFixture[str]):
    for words, expected in (
        ("--edit", "edit"),
        ("--edit_plus", "edit-2509"),
        ("--edit --model_version Edit-2511", "edit-2511"),
        ("--model_version original", "original"),
        ("--model_version layered", "layered"),
        ("", ""),
    ):
        asked = read_command(f"qwen_image_train_network.py --seed 1 {words}".split())
        kept, _ = answered(asked.given, asked.script)
        assert edition(kept) == expected
        assert list(kept) == ["seed"]
    for words, why in (
        ("qwen_image_train_network.py --model_version edit-2512", "the editions are edit, edit-2509 and edit-2511"),
        ("wan_train_network.py --one_frame", "no node of ComfyUI's makes the conditioning of one frame among others"),
    ):
        status, lines, _ = checked(capsys, *words.split())
        assert (status, why in "".join(lines)) == (1, True)
    asked = read_command(["flux_2_train_network.py", "--model_version", "klein-4b"])
    assert answered(asked.given, asked.script)[0] == {}


def test_what_a_launcher_is_told_counts(capsys: pytest.CaptureFixture[str]):
    words = "accelerate launch --num_processes {} wan_train_network.py --seed 1"
    assert checked(capsys, *words.format(1).split())[0] == 0
    status, lines, _ = checked(capsys, *words.format(2).split())
    assert (status, lines[0].split("  ")[-1].startswith("refused because torchrun starts several")) == (1, True)
    assert main(["train", *words.format(2).split()]) == 1
    assert "accelerate --num_processes 2 is refused: torchrun starts several" in capsys.readouterr().err
    assert main(["train", *words.format("2 --multi_gpu").split()]) == 1
    assert capsys.readouterr().err.endswith("; so are accelerate --multi_gpu; see why with --check-options\n")


def test_a_script_with_a_default_of_its_own():
    """Musubi's of Ideogram 4 draws timesteps by the picture's size; what is said counts."""
    kept, _ = answered({"learning_rate": 1e-4}, "ideogram4_train_network")
    assert kept["timestep_sampling"] == "ideogram4_shift"
    kept, _ = answered({"timestep_sampling": "uniform"}, "ideogram4_train_network")
    assert kept["timestep_sampling"] == "uniform"
    assert "timestep_sampling" not in answered({}, "wan_train_network")[0]


def test_what_hidream_o1_s_types_stand_for():
    def noise(**settings: object) -> tuple[float, ...]:
        found = train_options(own_options(answered(settings, "hidream_o1_train_network")[0])).noise
        return found.noise_scale_start, found.noise_scale_end, found.noise_clip_std

    assert noise(model_type="dev") == (7.5, 0, 2.5)
    assert noise(model_type="dev", noise_clip_std=0.0, noise_scale_end=7.0) == (7.5, 7.0, 0)
    assert noise(model_type="full") == noise() == (0, 0, 0)


def test_a_model_that_reads_pixels_and_words_itself_needs_no_other_file():
    asked = "hidream_o1_train_network", "krea2_train_network"
    one, other = ("\n".join(option_words(*answered({"dit": "x"}, script), script)) for script in asked)
    assert "it is needed to train" not in one
    assert other.count("it is needed to train") == 2
