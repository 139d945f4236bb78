"""`lyco train`: folders of images or videos, ComfyUI's VAE, a cache, one process or two; killed and resumed."""

import importlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from lyco_testing.comfy import ROOT, find_comfyui
from lyco_testing.films import film
from lyco_testing.tables import TRAINED
from lyco_testing.tiny_wan import TEXT, wan_checkpoint
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

CAPTIONS = ("a cat", "a dog", "", "a bird")


@pytest.fixture(scope="module")
def place(tmp_path_factory, pack) -> Path:
    """A tiny Wan, a small VAE, four pictures, and captions that are in the cache already.

    The text encoders of these models are gigabytes, so the captions' conditioning is stored as if one had
    been here; `test_encoding.py` has a real one.
    """
    TAEHV = pytest.importorskip("comfy.taesd.taehv", reason="this ComfyUI has no small VAE of videos").TAEHV
    folder = tmp_path_factory.mktemp("headless")
    save_file(wan_checkpoint(), folder / "wan.safetensors")
    torch.manual_seed(0)
    shapes = {key: value.shape for key, value in TAEHV(latent_channels=16, latent_format=None).state_dict().items()}
    vae = {key: torch.randn(shape) / max(shape.numel() // shape[0], 1) ** 0.5 for key, shape in shapes.items()}
    save_file(vae, folder / "vae.safetensors")
    save_file({"nothing": torch.zeros(1)}, folder / "umt5.safetensors")
    (folder / "pictures").mkdir()
    generator = np.random.default_rng(0)
    for number, caption in enumerate(CAPTIONS):
        pixels = generator.integers(0, 255, (70 + 10 * number, 90, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "pictures" / f"{number}.png")
        (folder / "pictures" / f"{number}.txt").write_text(caption)
    training = f"{pack.__name__}.nodes.host.training"
    encoders, pieces, cache = (importlib.import_module(f"{training}.{n}") for n in ("encoders", "pieces", "cache"))
    files = encoders.Encoders(TRAINED["wan"], str(folder / "vae.safetensors"), (str(folder / "umt5.safetensors"),))
    for number, caption in enumerate(sorted(set(CAPTIONS))):
        tensor = torch.randn((1, 8, TEXT), generator=torch.Generator().manual_seed(number))
        for home in ("pictures", "clips", "bad"):
            cache.store_conditioning(
                pieces.caption_entry(str(folder / home / ".lyco_cache"), caption, files),
                [tensor, {"pooled_output": None, "note": "x"}],
            )
    return folder


CONFIG = """
dit = "wan.safetensors"
vae = "vae.safetensors"
text_encoder = ["umt5.safetensors"]
output_dir = "{output}"

[network]
network_module = "networks.lokr"
network_dim = 4
network_alpha = 4
factor = 8

[training]
learning_rate = 1e-2
lr_scheduler = "cosine"
timestep_sampling = "shift"
discrete_flow_shift = 3.0
save_precision = "fp32"
mixed_precision = "no"
{more}

[general]
resolution = [64, 64]

{datasets}
"""
PICTURES = '[[datasets]]\nimage_directory = "pictures"\n'


def configuration(place: Path, output: str, more: str, datasets: str = PICTURES) -> Path:
    path = place / f"{output}.toml"
    path.write_text(CONFIG.format(output=output, more=more, datasets=datasets))
    return path


def command(config: Path, *more: str, processes: int = 1) -> list[str]:
    start = [sys.executable]
    if processes > 1:
        start += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return [*start, "-m", "lyco_core", "train", str(config), "--comfyui", str(find_comfyui()), *more]


ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


def lyco(*arguments, processes: int = 1, status: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command(*arguments, processes=processes), cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == status, done.stderr[-3000:]
    return done


def tensors(path: Path) -> dict[str, torch.Tensor]:
    return load_file(path)


def far(one: Path, other: Path) -> float:
    """The largest relative difference of a tensor."""
    a, b = tensors(one), tensors(other)
    assert a.keys() == b.keys()
    return max(float((a[key] - b[key]).norm() / b[key].norm().clamp(min=1e-12)) for key in a)


def test_pictures_into_a_file_and_a_cache(place: Path):
    config = configuration(
        place,
        "plain",
        "max_train_steps = 6\nseed = 3\nvalidate_every_n_steps = 6",
        PICTURES + '[[validation_datasets]]\nimage_directory = "pictures"\n',
    )
    first = lyco(config)
    assert "0 of 4 latents are in the cache" in first.stderr
    assert "training Wan 2.1/2.2 on cpu: 20 modules, " in first.stderr
    assert " parameters, learning rate 0.01, steps 1 to 6, 4 items, 1 a step" in first.stderr
    assert f"saved {place / 'plain' / 'adapter.safetensors'}\n" in first.stderr
    assert "Wan 2.1/2.2, 20 modules" in first.stdout
    assert "validation" in first.stdout
    with safe_open(place / "plain" / "adapter.safetensors", "pt") as file:
        metadata = file.metadata()
    assert json.loads(metadata["ss_datasets"])[0]["image_directory"] == "pictures"
    assert json.loads(metadata["ss_network_args"]) == {"factor": "8"}
    assert (metadata["ss_sd_model_name"], metadata["ss_vae_name"]) == ("wan.safetensors", "vae.safetensors")
    (place / "plain" / "adapter.safetensors").rename(place / "plain" / "first.safetensors")
    os.utime(place / "pictures" / "2.png")  # changed since
    second = lyco(config)
    assert "3 of 4 latents are in the cache" in second.stderr
    assert far(place / "plain" / "adapter.safetensors", place / "plain" / "first.safetensors") == 0
    taken = lyco(config, status=1)
    assert taken.stderr.splitlines()[-1].startswith("lyco: error: adapter.safetensors is there already; choose another")


def test_samples_of_a_file_of_prompts_leave_the_training_as_it_is(place: Path):
    (place / "prompts.txt").write_text(
        "# none\na cat --w 64 --h 64 --s 1 --n a dog\na bird --w 64 --h 64 --f 5 --s 1 --d 3\n"
    )
    more = "max_train_steps = 4\nseed = 3\n"
    lyco(configuration(place, "unsampled", more))
    done = lyco(
        configuration(place, "sampled", more + 'sample_prompts = "prompts.txt"\nsample_every_n_steps = 2\n'),
        *("--logging_dir", str(place / "logs")),
    )
    names = [f"adapter_{step:06d}_{end}" for step in (2, 4) for end in ("00_3.png", "01_3.webp")]
    assert [line.split(os.sep)[-1] for line in done.stderr.splitlines() if line.startswith("sample ")] == names
    assert sorted(path.name for path in (place / "sampled" / "sample").iterdir()) == names
    lines = [json.loads(line) for line in (place / "sampled" / "adapter.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 2, 2, 3, 4, 4, 4]
    assert lines[2] == {"step": 2, "sample": "sample/" + names[0], "prompt": "a cat", "seed": 3}
    assert far(place / "sampled" / "adapter.safetensors", place / "unsampled" / "adapter.safetensors") == 0
    for picture, message in (
        ("gone.png", f"prompt 1: control_image_path: {place / 'gone.png'}: there is no such file"),
        ("pictures/0.png", "wan.safetensors: there are control images and Wan 2.1/2.2 reads none: take out"),
    ):
        (place / "prompts.txt").write_text(f"a cat --ci {picture}\n")
        refused = lyco(
            configuration(place, "refused", more + 'sample_prompts = "prompts.txt"\nsample_at_first = true'), status=1
        )
        assert message in refused.stderr
        assert "latents are in the cache" not in refused.stderr


def test_musubis_command_trains_what_the_configuration_does(place: Path):
    """Pasted whole, in the folder from which its paths start, also those in the file of the datasets."""
    (place / "sets").mkdir(exist_ok=True)
    (place / "sets" / "sets.toml").write_text("[general]\nresolution = [64, 64]\n" + PICTURES)
    words = """accelerate launch --num_cpu_threads_per_process 1 --mixed_precision bf16
        src/musubi_tuner/wan_train_network.py --task t2v-1.3B --dit wan.safetensors --vae vae.safetensors
        --t5 umt5.safetensors --sdpa --mixed_precision no --dataset_config sets/sets.toml
        --max_data_loader_n_workers 2 --persistent_data_loader_workers --gradient_checkpointing --seed 5
        --network_module networks.lokr --network_dim 4 --network_alpha 4 --network_args factor=8
        --optimizer_type AdamW --learning_rate 1e-2 --lr_scheduler cosine --max_train_steps 4
        --timestep_sampling shift --discrete_flow_shift 3.0 --save_precision fp32
        --output_dir musubi --output_name adapter"""
    line = [sys.executable, "-m", "lyco_core", "train", "--comfyui", str(find_comfyui()), *words.split()]
    environment = ENVIRONMENT | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(line, cwd=place, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "sdpa: nothing to do here: ComfyUI chooses the kernel of its attention\n" in done.stderr
    lyco(configuration(place, "same", "max_train_steps = 4\nseed = 5"))
    assert far(place / "musubi" / "adapter.safetensors", place / "same" / "adapter.safetensors") == 0
    assert len((place / "musubi" / "adapter.jsonl").read_text().splitlines()) == 4


def test_the_library_alone_takes_the_pack_of_the_comfyui(place: Path, tmp_path: Path):
    """As after `pip install`, with ComfyUI named by $COMFYUI_PATH and the pack where a person has put it."""
    comfyui = find_comfyui()
    assert comfyui is not None
    site, fresh = tmp_path / "site", tmp_path / "ComfyUI"
    shutil.copytree(ROOT / "lyco_core", site / "lyco_core", ignore=shutil.ignore_patterns("__pycache__"))
    (fresh / "custom_nodes").mkdir(parents=True)
    for path in comfyui.iterdir():
        if path.name != "custom_nodes":
            (fresh / path.name).symlink_to(path)
    config = configuration(place, "library", "max_train_steps = 2")
    lines = [sys.executable, "-m", "lyco_core", "train", str(config)]
    environment = ENVIRONMENT | {"COMFYUI_PATH": str(fresh)}
    without = subprocess.run(lines, cwd=site, env=environment, capture_output=True, text=True, timeout=300)
    assert without.returncode == 1
    pack = fresh / "custom_nodes" / "comfyui-lyco"
    assert f'git clone https://github.com/comfyui-lyco/comfyui-lyco "{pack}", then run this again' in without.stderr
    pack.symlink_to(ROOT)
    done = subprocess.run(lines, cwd=site, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (place / "library" / "adapter.safetensors").exists()
    (fresh / "custom_nodes" / "zip").symlink_to(ROOT)
    twice = subprocess.run(lines, cwd=site, env=environment, capture_output=True, text=True, timeout=300)
    assert twice.returncode == 1
    assert "has the node pack 2 times (comfyui-lyco, zip)" in twice.stderr
    assert f'python "{pack / "lyco_core"}" train' in twice.stderr


def test_two_processes_are_one_with_twice_the_batch(place: Path):
    settings = "max_train_steps = 5\nsave_every_n_steps = 2\nbatch_size = {}"
    lyco(configuration(place, "one", settings.format(2)))
    done = lyco(configuration(place, "two", settings.format(1)), processes=2)
    assert done.stdout.count("20 modules") == 1
    assert sorted(p.name for p in (place / "two").iterdir()) == sorted(p.name for p in (place / "one").iterdir())
    assert far(place / "two" / "adapter.safetensors", place / "one" / "adapter.safetensors") < 1e-4


def test_with_the_blocks_divided_it_learns_the_same_bit_for_bit(place: Path):
    """Of 3 pictures, so that one process has nothing in every other batch; of more blocks than there are buffers."""
    save_file(wan_checkpoint(blocks=4), place / "deep.safetensors")
    shutil.copytree(place / "pictures", place / "three")
    (place / "three" / "3.png").unlink()
    datasets = PICTURES.replace("pictures", "three")
    settings = "max_train_steps = 4\nvalidate_every_n_steps = 2\nfp8_scaled = true"
    found: list[Path] = []
    for name, more in (("whole", []), ("divided", ["--shard_blocks"])):
        config = configuration(place, name, settings, datasets + datasets.replace("datasets", "validation_datasets"))
        config.write_text(config.read_text().replace("wan.safetensors", "deep.safetensors"))
        done = lyco(config, *more, processes=2)
        assert ("; the blocks are divided over 2 processes" in done.stderr) == bool(more)
        found.append(place / name / "adapter.safetensors")
    assert far(*found) == 0


def test_two_models_of_wan_make_one_file(place: Path):
    """By one process, by two, with the blocks divided over them, and with one model waiting."""
    low, high = wan_checkpoint(blocks=4), wan_checkpoint(blocks=4)
    save_file(low, place / "low.safetensors")
    save_file({key: tensor.flip(0) for key, tensor in high.items()}, place / "high.safetensors")
    settings = "max_train_steps = 6\ntimestep_boundary = 600\nvalidate_every_n_steps = 3\nbatch_size = {}\n"
    datasets = PICTURES + PICTURES.replace("datasets", "validation_datasets")
    asked = {
        "both": (2, 1, [], "; both models are there"),
        "both_waiting": (2, 1, ["--offload_inactive_dit"], "; the model that does not compute waits in the"),
        "both_of_two": (1, 2, [], "; both models are there"),
        "both_divided": (1, 2, ["--shard_blocks"], "the blocks are divided over 2 processes; both models are there"),
    }
    for name, (size, processes, more, told) in asked.items():
        config = configuration(place, name, settings.format(size), datasets)
        config.write_text(config.read_text().replace("wan.safetensors", "low.safetensors"))
        done = lyco(config, "--dit_high_noise", str(place / "high.safetensors"), *more, processes=processes)
        assert told in done.stderr
        assert ", the model for high noise at timestep 600 and above\n" in done.stderr
    one, waiting, two, divided = (place / name / "adapter.safetensors" for name in asked)
    assert far(one, waiting) == far(two, divided) == 0
    assert far(one, two) < 1e-4
    with safe_open(one, "pt") as file:
        assert file.metadata()["ss_timestep_boundary"] == "600.0"
    config.write_text(config.read_text().replace("low.safetensors", "high.safetensors"))
    lyco(config, "--output_dir", str(place / "alone"))
    assert far(place / "alone" / "adapter.safetensors", one) > 0.1


def test_two_models_that_are_no_pair(place: Path):
    (place / "narrow.safetensors").unlink(missing_ok=True)
    save_file(wan_checkpoint(blocks=1), place / "narrow.safetensors")
    config = configuration(place, "no_pair", "max_train_steps = 2")
    told = lyco(config, "--dit_high_noise", str(place / "narrow.safetensors"), status=1).stderr
    assert "narrow.safetensors: 10 modules differ between the two models (blocks.1.cross_attn.k: low noise" in told
    assert "latents are in the cache" not in told


def test_killed_and_resumed_it_is_the_uninterrupted_one(place: Path):
    more = """max_train_steps = 150
    save_every_n_steps = 5
    save_last_n_steps = 5
    save_state = true
    ema_decay = 0.9
    batch_size = 3
    caption_dropout_rate = 0.3
    network_args = ["rank_dropout=0.2", "module_dropout=0.1"]
    output_name = "long"
    """
    killed, through = configuration(place, "killed", more), configuration(place, "through", more)
    process = subprocess.Popen(command(killed), cwd=ROOT, env=ENVIRONMENT, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list((place / "killed").glob("long-step*0-state.pt")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.wait()
    state = max((place / "killed").glob("*-state.pt"))
    assert tensors(place / "killed" / state.name.replace("-state.pt", ".safetensors"))  # whole
    assert not (place / "killed" / "long.safetensors").exists()
    lyco(killed, "--resume", str(state))
    lyco(through)
    assert far(place / "killed" / "long.safetensors", place / "through" / "long.safetensors") == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP], ids=["Ctrl+C", "a closed terminal"])
def test_stopped_it_saves_what_there_is(number: signal.Signals, place: Path):
    output = f"stopped_{number.name}"
    config = configuration(place, output, "max_train_steps = 100000")
    before = signal.signal(number, signal.SIG_DFL)  # under nohup the tests ignore SIGHUP, and so would what they start
    process = subprocess.Popen(command(config), cwd=ROOT, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True, bufsize=1)
    signal.signal(number, before)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("step 100 "):
            process.send_signal(number)
            break
    with process.stderr:
        rest = process.stderr.read()
    assert process.wait(60) == 1
    (adapter,) = (place / output).glob("adapter-step*.safetensors")
    (state,) = (place / output).glob("*-state.pt")
    assert len(tensors(adapter)) == 80
    assert "training stopped after step 1" in rest
    assert f"saved {state}\n" in rest
    *_, last = rest.splitlines()
    told, _, again = last.partition("; go on with: ")
    assert told == "lyco: error: stopped; what was encoded or trained so far is saved"
    assert shlex.split(again) == command(config, "--resume", str(state))


def test_videos(place: Path):
    import av

    (place / "clips").mkdir(exist_ok=True)
    generator = np.random.default_rng(1)
    with av.open(str(place / "clips" / "a.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=16)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for _ in range(12):
            frame = av.VideoFrame.from_ndarray(generator.integers(0, 255, (64, 96, 3), dtype=np.uint8))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    (place / "clips" / "a.txt").write_text("a cat")
    datasets = '[[datasets]]\nvideo_directory = "clips"\ntarget_frames = [1, 5]\nframe_extraction = "chunk"\n'
    done = lyco(configuration(place, "video", "max_train_steps = 3", datasets))
    assert "of 14 latents are in the cache" in done.stderr  # 12 of one frame, 2 of five
    shapes = {tuple(tensors(path)["latent"].shape) for path in (place / "clips" / ".lyco_cache").glob("a_*")}
    assert shapes == {(16, 1, 6, 10), (16, 2, 6, 10)}  # the bucket of 3:2, as Musubi has it


@pytest.mark.parametrize(("task", "channels", "control"), [("i2v-A14B", 20, ""), ("t2v-14B-FC", 36, "over")])
def test_first_frames_by_musubis_command(task: str, channels: int, control: str, place: Path):
    """Wan 2.2 image to video, whose first frame comes from the clips themselves, and Fun-Control."""
    weights = wan_checkpoint()
    more = torch.ones(128, channels, 1, 2, 2)
    weights["patch_embedding.weight"] = torch.cat([weights["patch_embedding.weight"], more], 1)
    save_file(weights, place / "i2v.safetensors")
    (place / "clips").mkdir(exist_ok=True)
    film(place / "clips" / "first.mp4", 9, caption="a cat")
    (place / "clips.toml").write_text(
        '[general]\nresolution = [64, 64]\n[[datasets]]\nvideo_directory = "clips"\ntarget_frames = [5]\n'
        + (f'control_directory = "{control}"\n' if control else "")
    )
    (place / "frame.txt").write_text("a cat --i pictures/0.png --w 64 --h 64 --f 5 --s 1")
    if control:
        (place / control).mkdir()
        for clip in (place / "clips").glob("*.mp4"):
            film(place / control / clip.name, 9, first=100)
    words = f"""wan_train_network.py --task {task} --dit i2v.safetensors --vae vae.safetensors --t5 umt5.safetensors
        --dataset_config clips.toml --sdpa --mixed_precision no --network_module networks.lokr --network_dim 4
        --max_train_steps 3 --timestep_sampling shift --discrete_flow_shift 5.0 --min_timestep 900
        {"" if control else "--sample_prompts frame.txt --sample_at_first"}
        --output_dir first{channels} --output_name adapter"""
    line = [sys.executable, "-m", "lyco_core", "train", "--comfyui", str(find_comfyui()), *words.split()]
    environment = ENVIRONMENT | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(line, cwd=place, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "first frames are in the cache" in done.stderr
    assert (place / f"first{channels}" / "adapter.safetensors").exists()
    if not control:
        (sample,) = (place / f"first{channels}" / "sample").iterdir()
        assert sample.name == "adapter_000000_00_42.webp"
        (shown,) = (place / "clips" / ".lyco_cache").glob("sample_first_*")
        assert tensors(shown)["concat_latent_image"].shape == (1, 16, 2, 8, 8)
    (frame,) = (place / "clips" / ".lyco_cache").glob("first_*_control_*" if control else "first_*_first_*")
    (latent,) = (path for path in (place / "clips" / ".lyco_cache").glob("first_*") if path != frame)
    assert tensors(frame)["concat_latent_image"].shape[2:] == tensors(latent)["latent"].shape[1:]
    (place / "clips" / "first.mp4").unlink()
    for entry in (frame, latent):
        entry.unlink()


@pytest.mark.parametrize(
    ("more", "datasets", "message"),
    [
        ("", "", "there is no dataset: expected [[datasets]]"),
        ("", '[[datasets]]\nimage_directory = "nowhere"', "cannot be read: No such file"),
        ("", '[[datasets]]\nimage_directory = "."', "there are no images in it"),
        ("learning_rat = 1", PICTURES, "there is no option learning_rat; do you mean learning_rate?"),
        ("resume = 3", PICTURES, "resume is 3, expected the name of a file"),
        ("network_dropout = 2.0", PICTURES, "network_dropout is 2.0, expected"),
        ('resume = "none.pt"', PICTURES, "none.pt: there is no such file to resume from"),
        ('network_weights = "vae.safetensors"', PICTURES, "vae.safetensors: "),
    ],
)
def test_what_is_wrong_is_said_in_a_line(place: Path, more: str, datasets: str, message: str):
    done = lyco(configuration(place, "wrong", more, datasets), status=1)
    assert message in done.stderr.splitlines()[-1]
    assert done.stderr.splitlines()[-1].startswith("lyco: error: ")
    assert "Traceback" not in done.stderr


def test_a_picture_that_is_none(place: Path):
    (place / "bad").mkdir(exist_ok=True)
    (place / "bad" / "x.png").write_bytes(b"no picture")
    (place / "bad" / "x.txt").write_text("a cat")
    done = lyco(configuration(place, "bad_out", "", '[[datasets]]\nimage_directory = "bad"'), status=1)
    assert "x.png: is no image that can be read" in done.stderr.splitlines()[-1]
