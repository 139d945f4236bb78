"""The prompts of samples, as Musubi writes them, when they are sampled, and how strongly a prompt counts."""

import json

import pytest

from lyco_core.architectures import ARCHITECTURES
from lyco_core.errors import TrainError
from lyco_core.model import Model
from lyco_core.train import layers
from lyco_core.train.first_frames import FirstFrame
from lyco_core.train.options import train_options
from lyco_core.train.prompts import read_prompts
from lyco_core.train.references import EDITIONS, References
from lyco_core.train.sample_options import SampleOptions, Strengths, strengths
from lyco_core.train.sample_prompt import SamplePrompt, located
from lyco_core.train.samples import prompts_of, references_of_prompts, require_fitting, require_supplied

DOCUMENTED = """# prompt 1: for generating a cat video
A cat walks on the grass, realistic style. --w 640 --h 480 --f 25 --d 1 --s 20

# prompt 2: for generating a dog image
A dog runs on the beach, realistic style. --w 960 --h 544 --f 1 --d 2 --s 20 --n ugly, bad --l 6.0 --fs 14.5 --g 1
"""

CAT = SamplePrompt("A cat walks on the grass, realistic style.", None, 640, 480, 25, 1, 20)
DOG = SamplePrompt(
    "A dog runs on the beach, realistic style.",
    "ugly, bad",
    960,
    544,
    1,
    2,
    20,
    1.0,
    cfg_scale=6.0,
    discrete_flow_shift=14.5,
)


def test_the_documented_file(tmp_path):
    (tmp_path / "p.txt").write_text(DOCUMENTED)
    assert read_prompts(str(tmp_path / "p.txt")) == (CAT, DOG)
    assert read_prompts(DOCUMENTED.splitlines()) == (CAT, DOG)


def test_toml_and_json(tmp_path):
    (tmp_path / "p.toml").write_text(
        '[prompt]\nwidth = 640\nheight = 480\nsample_steps = 20\n[[prompt.subset]]\nprompt = "a"\nseed = 1\n'
        '[[prompt.subset]]\nprompt = "b"\nwidth = 64\n'
    )
    expected = (SamplePrompt("a", None, 640, 480, seed=1), SamplePrompt("b", None, 64, 480))
    assert read_prompts(str(tmp_path / "p.toml")) == expected
    (tmp_path / "p.json").write_text(
        json.dumps(["a --w 640 --h 480 --d 1", {"prompt": "b", "width": 64, "height": 480}])
    )
    assert read_prompts(str(tmp_path / "p.json")) == expected


def test_pictures(tmp_path):
    lines = ["a --i c d.png --ei e.png --cn f.mp4 --w 64", "b --ci 1.png --n bad --ci 2.png", "c"]
    first, edit, plain = read_prompts(lines)
    assert (first.paths(), edit.paths()) == (["c d.png", "e.png", "f.mp4"], ["1.png", "2.png"])
    assert (first.image_path, first.end_image_path, first.width) == ("c d.png", "e.png", 64)
    assert (edit.control_image_path, edit.negative_prompt) == (("1.png", "2.png"), "bad")
    (tmp_path / "p.json").write_text(json.dumps([{"prompt": "b", "control_image_path": "1.png"}]))
    assert read_prompts(str(tmp_path / "p.json"))[0].control_image_path == ("1.png",)
    found = located([first, edit, plain], lambda name, path: f"{name}/{path}")
    assert (found[0].image_path, found[0].end_image_path) == ("image_path/c d.png", "end_image_path/e.png")
    assert found[0].control_video_path == "control_video_path/f.mp4"
    assert found[1].control_image_path == ("control_image_path/1.png", "control_image_path/2.png")
    assert found[2] == plain

    def nowhere(name: str, path: str) -> str:
        raise TrainError(f"{name}: {path} is nowhere")

    with pytest.raises(TrainError, match=r"^prompt 2: control_image_path: 1\.png is nowhere"):
        located([plain, edit], nowhere)


def test_a_picture_without_its_path():
    with pytest.raises(TrainError, match="prompt 1: image_path is empty, expected the path of a picture"):
        read_prompts(["a cat --i --w 64"])


FRAME, BOTH = FirstFrame("WanImageToVideo", 20), FirstFrame("WanFirstLastFrameToVideo", 20, last=True)
EITHER = FirstFrame("HunyuanVideo15ImageToVideo", 33, chosen=True)
OVER = FirstFrame("WanFunControlToVideo", 32, control=True, first=False)
OVER_FRAME = FirstFrame("WanFunControlToVideo", 32, control=True, chosen=True)
PLAIN, SOUND = (Model({}, "", ARCHITECTURES[family], "comfyui") for family in ("qwen_image", "ace_step_1_5"))
FILL = Model({"img_in.weight": (8, 96), "final_layer.linear.weight": (64, 8)}, "", ARCHITECTURES["flux1"], "comfyui")
LAYERED = Model({"time_text_embed.addition_t_embedding.weight": (2, 1)}, "", ARCHITECTURES["qwen_image"], "comfyui")


@pytest.mark.parametrize(
    ("line", "kind", "how", "weights", "message"),
    [
        ("a", None, None, PLAIN, None),
        ("a", None, None, FILL, "sample_prompts: the model reads concat_latent_image beside the noise"),
        ("a --i b.png", None, None, PLAIN, "prompt 1: image_path: the model reads no first frame; leave it out"),
        ("a --i b.png", FRAME, None, FILL, None),
        ("a", FRAME, None, PLAIN, "prompt 1: the model reads a first frame, and no image_path is given; add --i"),
        ("a --i b.png --ei c.png", FRAME, None, PLAIN, "prompt 1: end_image_path: the model reads no last frame"),
        ("a --i b.png", BOTH, None, PLAIN, "prompt 1: the model reads a last frame too, and no end_image_path is"),
        ("a --ei b.png", BOTH, None, PLAIN, "prompt 1: the model reads a first frame"),
        ("a --i b.png --ei c.png", BOTH, None, PLAIN, None),
        ("a", EITHER, None, PLAIN, None),
        ("a --i b.png", EITHER, None, PLAIN, None),
        ("a --ci b.png --ci c.png", None, References("FLUX.2"), PLAIN, None),
        ("a --ci b.png --ci c.png", None, EDITIONS["edit"], PLAIN, "prompt 1: has 2 control images, and Qwen-Image-"),
        ("a --cn b.mp4", OVER, None, PLAIN, None),
        ("a", OVER, None, PLAIN, "prompt 1: the model reads a control video, and no control_video_path is given; add"),
        ("a --cn b.mp4 --i c.png", OVER, None, PLAIN, "prompt 1: image_path: the model reads no first frame"),
        ("a --cn b.mp4", OVER_FRAME, None, PLAIN, "prompt 1: the model reads a first frame, and no image_path"),
        ("a --cn b.mp4 --i c.png", OVER_FRAME, None, PLAIN, None),
        ("a --cn b.mp4 --i c.png", FRAME, None, PLAIN, "prompt 1: control_video_path: the model reads no control"),
        ("a --ci b.png", None, layers.LAYERED, LAYERED, None),
        ("a", None, layers.LAYERED, LAYERED, "prompt 1: the model takes a picture apart, and no control_image_path"),
        ("a --ci b --ci c", None, layers.LAYERED, LAYERED, "prompt 1: has 2 control images, and Qwen-Image-Layered"),
        ("a --lyrics la --seconds 3 --bpm 90", None, None, SOUND, None),
        ("a --w 64 --n b", None, None, SOUND, "prompt 1: negative_prompt, width: the model makes sound, not pictures"),
        ("a --lyrics la", None, None, PLAIN, "prompt 1: lyrics: the model makes no sound; leave it out"),
    ],
)
def test_a_prompt_says_what_its_model_reads(line, kind, how, weights, message):
    prompts = read_prompts([line])
    if message is None:
        require_fitting(weights, prompts, kind, how)
        return
    with pytest.raises(TrainError) as error:
        require_fitting(weights, prompts, kind, how)
    assert str(error.value).startswith(message)


def test_a_model_of_layers_reads_its_picture_whatever_the_prompts_are():
    found = [references_of_prompts(LAYERED, (), first_removed=removed) for removed in (False, True)]
    assert [(how.layers, how.whole) for how in found if how] == [(True, True), (True, False)]
    assert references_of_prompts(PLAIN, read_prompts(["a"])) is None
    with pytest.raises(TrainError, match="there are control images and model_version is not given"):
        references_of_prompts(PLAIN, read_prompts(["a --ci b.png"]))


def test_a_song(tmp_path):
    (song,) = read_prompts([r"pop, piano --lyrics [verse]\nla la --seconds 12.5 --bpm 90 --keyscale E minor --d 3"])
    assert (song.prompt, song.lyrics, song.seconds) == ("pop, piano", "[verse]\nla la", 12.5)
    assert (song.bpm, song.keyscale, song.seed, song.language) == (90, "E minor", 3, None)
    (tmp_path / "p.json").write_text(json.dumps([{"prompt": "pop", "lyrics": "la\n\\n"}]))
    assert read_prompts(str(tmp_path / "p.json"))[0].lyrics == "la\n\\n"


def test_steps_are_kept_in_musubis_bounds():
    assert [p.sample_steps for p in read_prompts(["a --s 0", "a --s 5000"])] == [1, 1000]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a --w 6x", "prompt 2: width is '6x', expected a whole number"),
        ("a --w 8", "prompt 2: width is 8, expected a whole number of at least 16"),
        (
            "a --zz 8",
            "prompt 2: --zz is none of its options, which are --w, --h, --f, --d, --s, --g, --fs, --l, --n, --i, --ei",
        ),
        ("a --of x", "prompt 2: one_frame is not sampled with here; leave it out, or sample with the"),
        ({"one_frame": "x"}, "prompt 2: one_frame is not sampled with here"),
        ({"image_path": 3}, "prompt 2: image_path is 3, expected a text"),
        (
            {"control_image_path": ["a", 3]},
            "prompt 2: control_image_path is ['a', 3], expected a text, or a list of such",
        ),
        ({"prompt": 3}, "prompt 2: prompt is 3, expected a text"),
        ({"prompt": "a", "seeds": 3}, "prompt 2: seeds is none of its options"),
        (7, "prompt 2: is 7, expected a line or a table"),
    ],
)
def test_what_no_prompt_is_is_refused(line, message):
    with pytest.raises(TrainError) as error:
        read_prompts(["a cat", line])
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("p.yaml", "a", "p.yaml: ends in .yaml, expected a file of prompts that is .txt, .toml or .json"),
        ("p.txt", "# none\n\n", "p.txt: there is no prompt in sample_prompts; write one a line"),
        ("p.json", "{}", "p.json: is no list, expected one of prompts"),
        ("p.json", "[", "p.json: is no json file in UTF-8: "),
        ("p.toml", "[prompt]\n", r"p.toml: has no \[\[prompt.subset\]\], expected one for each prompt"),
    ],
)
def test_a_file_that_is_none_is_named(name, text, message, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(TrainError, match=message):
        read_prompts(str(tmp_path / name))
    with pytest.raises(TrainError, match=r"gone.txt: cannot be read: "):
        read_prompts(str(tmp_path / "gone.txt"))


def test_when_samples_are_due():
    options = SampleOptions(("a",), sample_every_n_steps=4, sample_every_n_epochs=2)
    assert [step for step in range(13) if options.due(step, 3)] == [4, 6, 8, 12]
    assert SampleOptions(("a",), sample_at_first=True).due(0, 3)
    with pytest.raises(TrainError, match="sample_prompts needs to be told when; give sample_every_n_steps"):
        SampleOptions(("a",))
    with pytest.raises(TrainError, match="there is nothing in sample_prompts; give some, or no times"):
        SampleOptions(sample_every_n_steps=4)


def test_a_training_without_prompts_reads_none_and_a_divided_model_makes_none(tmp_path):
    assert prompts_of(train_options({})) == ()
    options = {"sample_prompts": ["a", "b --n a"], "sample_at_first": True}
    prompts = prompts_of(train_options(options))
    assert [prompt.prompt for prompt in prompts] == ["a", "b"]
    with pytest.raises(TrainError, match="sample_prompts: the items' conditioning holds vace_frames, which no prompt"):
        require_supplied(train_options(options), ["concat_mask", "vace_frames"])
    require_supplied(train_options(options), ["concat_mask", "reference_latents"])
    require_supplied(train_options({}), ["vace_frames"])
    with pytest.raises(TrainError, match="shard_blocks divides the model over processes, and no sample"):
        prompts_of(train_options({**options, "shard_blocks": True}))


@pytest.mark.parametrize(
    ("family", "guided", "line", "expected"),
    [
        ("flux1", True, "a", (1, 3.5)),
        ("flux1", True, "a --g 2.5 --l 3", (3, 2.5)),
        ("wan", False, "a", (5, 4)),
        ("wan", False, "a --g 3", (5, 3)),
        ("flux2", False, "a --g 3", (3, 3)),
        ("flux2", True, "a --g 3", (1, 3)),
        ("hunyuan_video", True, "a", (1, 6)),
        ("z_image", False, "a --l 1", (1, 4)),
        ("unheard of", False, "a", (4, 4)),
    ],
)
def test_a_family_is_sampled_as_it_is_made(family, guided, line, expected):
    assert strengths(read_prompts([line])[0], family, guided=guided) == Strengths(*expected)
