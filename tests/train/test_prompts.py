"""The prompts of samples, as Musubi writes them, when they are sampled, and how strongly a prompt counts."""

import json

import pytest

from lyco_core.errors import TrainError
from lyco_core.train.options import train_options
from lyco_core.train.prompts import SamplePrompt, read_prompts
from lyco_core.train.sample_options import SampleOptions, Strengths, strengths
from lyco_core.train.samples import prompts_of, require_text_alone, texts_of

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


def test_steps_are_kept_in_musubis_bounds():
    assert [p.sample_steps for p in read_prompts(["a --s 0", "a --s 5000"])] == [1, 1000]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a --w 6x", "prompt 2: width is '6x', expected a whole number"),
        ("a --w 8", "prompt 2: width is 8, expected a whole number of at least 16"),
        ("a --zz 8", "prompt 2: --zz is none of its options, which are --w, --h, --f, --d, --s, --g, --fs, --l, --n"),
        ("a --i cat.png", "prompt 2: image_path names a picture, and samples are made from text alone here; leave it"),
        ("a --ci cat.png", "prompt 2: control_image_path names a picture"),
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
    assert texts_of(prompts) == ["", "a", "b"]
    with pytest.raises(TrainError, match="sample_prompts: the model reads a picture beside the text"):
        require_text_alone(train_options(options), "concat_latent_image")
    require_text_alone(train_options(options), None)
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
