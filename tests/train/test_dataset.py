"""Datasets as Musubi's configuration describes them: files, captions, sizes, pieces of videos."""

import dataclasses
import json
import math
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lyco_core.architectures import ARCHITECTURES
from lyco_core.errors import TrainError
from lyco_core.train.control_videos import require_control_videos, require_no_control_videos
from lyco_core.train.dataset import (
    Dataset,
    Media,
    at_rate,
    controls_in,
    fit,
    fit_control,
    frames_of,
    kinds_in,
    media_of,
    parse_datasets,
    windows,
)
from lyco_core.train.dataset.buckets import bucket_sizes


def images(**settings: object) -> Dataset:
    return Dataset(image_directory="here", **settings)


def test_general_is_what_datasets_do_not_say(tmp_path: Path):
    general = {"resolution": 512, "num_repeats": 2, "caption_extension": ".caption"}
    absolute = str(tmp_path.parent / "b")
    entries = [
        {"image_directory": "a"},
        {"video_directory": absolute, "resolution": [640, 480], "target_frames": [1, 25]},
    ]
    one, two = parse_datasets({"general": general, "datasets": entries}, tmp_path)
    assert one == Dataset(
        image_directory=str(tmp_path / "a"), resolution=(512, 512), num_repeats=2, caption_extension=".caption"
    )
    assert (two.video_directory, two.resolution) == (absolute, (640, 480))
    assert (two.target_frames, two.is_video) == ((1, 25), True)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({}, "a dataset names no folder, expected exactly one of image_directory"),
        ({"image_directory": "a", "video_directory": "b"}, "names image_directory, video_directory, expected exactly"),
        ({"image_directory": "a", "image_dir": "b"}, "there is no option image_dir; do you mean image_directory"),
        ({"video_jsonl_file": "a", "control_directory": "b"}, "control_directory goes with image_directory and vi"),
        ({"image_jsonl_file": "a", "control_directory": "b"}, "control_directory goes with image_directory and vi"),
        ({"image_directory": "a", "control_resolution": [64]}, r"control_resolution is \[64\], expected whole numbers"),
        ({"image_directory": "a", "fp_1f_no_post": True}, "fp_1f_no_post is not supported here: it is of training"),
        ({"image_directory": "a", "resolution": [512]}, r"resolution is \[512\], expected whole numbers"),
        ({"image_directory": "a", "resolution": "512"}, "resolution is"),
        ({"image_directory": "a", "num_repeats": 0}, "num_repeats is 0, expected a whole number of at least 1"),
        ({"video_directory": "a", "frame_extraction": "tail"}, "frame_extraction is 'tail', expected one of head"),
    ],
)  # fmt: skip
def test_refused(entry: dict, message: str, tmp_path: Path):
    with pytest.raises(TrainError, match=message):
        parse_datasets({"datasets": [entry]}, tmp_path)


def test_what_is_off_or_does_nothing_without_framepack(tmp_path: Path):
    entry = {"image_directory": "a", "multiple_target": False, "fp_1f_no_post": False, "fp_latent_window_size": 9}
    (found,) = parse_datasets({"datasets": [entry]}, tmp_path)
    assert found == Dataset(image_directory=str(tmp_path / "a"))


def test_options_of_control_images(tmp_path: Path):
    entry = {"image_directory": "a", "control_directory": "b", "control_resolution": 64, "no_resize_control": True}
    (found,) = parse_datasets({"datasets": [entry]}, tmp_path)
    assert (found.control_directory, found.control_resolution) == (str(tmp_path / "b"), (64, 64))
    former = {"qwen_image_edit_control_resolution": 64, "flux_kontext_no_resize_control": True}
    assert parse_datasets({"datasets": [{"image_directory": "a", "control_directory": "b"} | former]}, tmp_path) == (
        found,
    )
    both = entry | {"qwen_image_edit_control_resolution": 32}
    assert parse_datasets({"datasets": [both]}, tmp_path) == (found,)


def test_no_datasets(tmp_path: Path):
    with pytest.raises(TrainError, match=r"there is no dataset: expected \[\[datasets\]\]"):
        parse_datasets({}, tmp_path)


def test_a_list_of_what_is_no_table(tmp_path: Path):
    with pytest.raises(TrainError, match=r"datasets is \['a'\], expected tables: \[\[datasets\]\]"):
        parse_datasets({"datasets": ["a"]}, tmp_path)


def test_a_folder(tmp_path: Path):
    for name in ("b.PNG", "a.jpg", "c.mp4", "notes.md"):
        (tmp_path / name).write_bytes(b"")
    dataset = Dataset(image_directory=str(tmp_path))
    with pytest.raises(TrainError, match=r"2 of 2 have no caption \(a.jpg, b.PNG\); put a file of the same name"):
        media_of(dataset)
    (tmp_path / "a.txt").write_text(" a cat \n", "utf-8")
    (tmp_path / "b.txt").write_text("", "utf-8")
    assert media_of(dataset) == [Media(str(tmp_path / "a.jpg"), "a cat"), Media(str(tmp_path / "b.PNG"), "")]
    with pytest.raises(TrainError, match=r"1 of 1 have no caption \(c.mp4\)"):
        media_of(Dataset(video_directory=str(tmp_path)))


def test_what_other_systems_leave_in_files(tmp_path: Path):
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "._a.png").write_bytes(b"")  # macOS, beside every file on a foreign disk
    (tmp_path / "a.txt").write_text("a cat\r\n", "utf-8-sig")  # Windows' editors
    assert media_of(Dataset(image_directory=str(tmp_path))) == [Media(str(tmp_path / "a.png"), "a cat")]


def test_an_empty_folder_and_none(tmp_path: Path):
    with pytest.raises(TrainError, match="there are no images in it, expected files that end in"):
        media_of(Dataset(image_directory=str(tmp_path)))
    with pytest.raises(TrainError, match="none: cannot be read: "):
        media_of(Dataset(image_directory=str(tmp_path / "none")))


def test_a_list(tmp_path: Path):
    lines = [
        {"image_path": "x/a.png", "caption": "one"},
        {"image_path": str(tmp_path.parent / "b.png"), "caption": " two"},
    ]
    media = [Media(os.path.join(tmp_path, "x/a.png"), "one"), Media(str(tmp_path.parent / "b.png"), "two")]
    path = tmp_path / "items.jsonl"
    path.write_text("\n\n".join(map(json.dumps, lines)), "utf-8")
    dataset = Dataset(image_jsonl_file=str(path))
    assert media_of(dataset) == media
    lines[1]["caption"] = "one\u2028line"  # ends a line for Python, not for JSON
    path.write_text("\n".join(json.dumps(line, ensure_ascii=False) for line in lines), "utf-8")
    assert [media.caption for media in media_of(dataset)] == ["one", "one\u2028line"]
    path.write_text("\n\n".join(map(json.dumps, [*lines[:1], {**lines[1], "caption": " two"}])), "utf-8")
    assert media_of(dataset) == media
    assert dataset.cache == str(tmp_path / ".lyco_cache")
    path.write_text('{"image_path": "a.png"}', "utf-8")
    with pytest.raises(TrainError, match=r"line 1 cannot be read, expected"):
        media_of(dataset)


def folder_of(place: Path, *names: str) -> str:
    place.mkdir()
    for name in names:
        (place / name).write_bytes(b"")
    return str(place)


def test_control_images_in_a_folder(tmp_path: Path):
    """Those that Musubi's own code found."""
    names = ["a.png", "a_b.png", "ab.jpg", "c.png"]
    controls = ("a_10.png", "a_2.webp", "a.JPG", "a_b_0.png", "ab.png", "a_b.png", "a_b_1.txt", "._a.png", "d.png")
    folder = folder_of(tmp_path / "controls", *controls)
    found = controls_in(folder, names, (".png", ".jpg", ".webp"))
    listed = {name: [os.path.basename(path) for path in paths] for name, paths in found.items()}
    assert listed == {
        "a.png": ["a.JPG", "a_2.webp", "a_10.png"],
        "a_b.png": ["a_b.png", "a_b_0.png"],
        "ab.jpg": ["ab.png"],
    }
    items = folder_of(tmp_path / "items", "a.png", "c.png", "a.txt", "c.txt")
    dataset = Dataset(image_directory=items, control_directory=folder)
    with pytest.raises(TrainError, match=r"a_b.png: begins as a does and ends in no number.*name it a_0"):
        media_of(dataset)
    (tmp_path / "controls" / "a_b.png").unlink()
    with pytest.raises(TrainError, match=r"controls: 1 of 2 images have no control in it \(c.png\); put an image of"):
        media_of(dataset)
    (tmp_path / "controls" / "c_0001.png").write_bytes(b"")
    assert [len(media.controls) for media in media_of(dataset)] == [4, 1]
    with pytest.raises(TrainError, match=r"control_directory: .*none: cannot be read"):
        media_of(Dataset(image_directory=items, control_directory=str(tmp_path / "none")))


def test_control_images_in_a_list(tmp_path: Path):
    path = tmp_path / "items.jsonl"
    lines = [
        {"control_path": "x.png"},
        {"control_path_0": "x.png", "control_path_1": str(tmp_path / "y.png")},
        {"control_path_0010": "y.png", "control_path_0002": "x.png"},
        {"control_path": ""},
    ]
    path.write_text("\n".join(json.dumps({"image_path": "a", "caption": "one"} | line) for line in lines), "utf-8")
    x, y = str(tmp_path / "x.png"), str(tmp_path / "y.png")
    found = [media.controls for media in media_of(Dataset(image_jsonl_file=str(path)))]
    assert found == [(x,), (x, y), (x, y), ()]
    for line in ({"control_path": "x", "control_path_0": "y"}, {"control_path_a": "x"}):
        path.write_text(json.dumps({"image_path": "a", "caption": "one"} | line), "utf-8")
        with pytest.raises(TrainError, match=r"items.jsonl: line 1 has control_path_\w, expected control_path, or"):
            media_of(Dataset(image_jsonl_file=str(path)))
    line = {"video_path": "a", "caption": "one", "control_path": "x"}
    path.write_text(json.dumps(line), "utf-8")
    assert [media.controls for media in media_of(Dataset(video_jsonl_file=str(path)))] == [(str(tmp_path / "x"),)]
    path.write_text(json.dumps(line | {"control_path_1": "y"}), "utf-8")
    with pytest.raises(TrainError, match=r"items.jsonl: line 1 has 2 control videos, expected one"):
        media_of(Dataset(video_jsonl_file=str(path)))


def test_control_videos_in_a_folder(tmp_path: Path):
    """In Musubi's order: of the whole name, a folder of frames, another ending."""
    items = folder_of(tmp_path / "items", "a.mp4", "b.mp4", "b_1.mp4", "c.MOV", *(f"{n}.txt" for n in "abc"), "b_1.txt")
    controls = folder_of(tmp_path / "controls", "a.mkv", "a.mp4", "b.MOV", "c.webm", "b_1.png", "._c.MOV")
    (tmp_path / "controls" / "c").mkdir()
    dataset = Dataset(video_directory=items, control_directory=controls)
    with pytest.raises(TrainError, match=r"1 of 4 videos have no control in it \(b_1.mp4\); put a video of the same"):
        media_of(dataset)
    (tmp_path / "controls" / "b_1.avi").write_bytes(b"")
    found = [[os.path.basename(path) for path in media.controls] for media in media_of(dataset)]
    assert found == [["a.mp4"], ["b.MOV"], ["b_1.avi"], ["c"]]
    require_control_videos([dataset])
    with pytest.raises(TrainError, match=r"a.mp4: has a control video, and Wan reads none: take out control_directory"):
        require_no_control_videos([dataset], "Wan")
    with pytest.raises(
        TrainError, match=r"items: 4 of 4 have no control \(.*\), and Fun-Control is trained with one over"
    ):
        require_control_videos([Dataset(video_directory=items)])
    with pytest.raises(TrainError, match="take out no_resize_control and control_resolution"):
        require_control_videos([dataclasses.replace(dataset, no_resize_control=True)])
    pictures = folder_of(tmp_path / "pictures", "a.png", "a.txt")
    over = folder_of(tmp_path / "over", "a_0.png", "a_1.png")
    with pytest.raises(TrainError, match=r"a.png: has 2 control images, and Fun-Control reads one"):
        require_control_videos([Dataset(image_directory=pictures, control_directory=over)])


@pytest.mark.parametrize(("family", "size", "frames"), [("ltx_video", (352, 160), 25), ("wan", (336, 176), 29)])
def test_sizes_are_those_of_the_models_vae(family: str, size: tuple, frames: int):
    """A VAE cuts away what is more."""
    training = ARCHITECTURES[family].training
    assert training
    dataset = Dataset(video_directory="a", resolution=(336, 176), target_frames=(31,), steps=training.steps)
    assert fit(dataset, 336, 176).size == size
    assert fit_control(dataset, 336, 176, (336, 176)).size == size
    assert windows(dataset, 40) == [(0, frames)]
    assert windows(dataclasses.replace(dataset, frame_extraction="full", max_frames=30), 40) == [(0, frames)]
    assert "steps" not in dataset.told()
    with pytest.raises(TrainError, match="there is no option steps"):
        parse_datasets({"datasets": [{"image_directory": "a", "steps": [16, 4]}]}, Path())


def test_layers_in_a_folder_and_in_a_list(tmp_path: Path):
    """Images without a caption are the layers of that whose name theirs begins with."""
    names = ("a.png", "a.txt", "a_10.png", "a_2.webp", "a_b.png", "a_b.txt", "a_b_1.png", "c.jpg", "c.txt")
    folder = folder_of(tmp_path / "items", *names)
    dataset = Dataset(image_directory=folder, multiple_target=True)
    found = {os.path.basename(m.path): [os.path.basename(path) for path in m.layers] for m in media_of(dataset)}
    assert found == {"a.png": ["a_2.webp", "a_10.png"], "a_b.png": ["a_b_1.png"], "c.jpg": []}
    with pytest.raises(TrainError, match=r"3 of 6 have no caption"):
        media_of(Dataset(image_directory=folder))
    (tmp_path / "items" / "d_1.png").write_bytes(b"")
    with pytest.raises(TrainError, match=r"1 of 4 have no caption \(d_1.png\)"):
        media_of(dataset)
    (tmp_path / "items" / "a_x.png").write_bytes(b"")
    with pytest.raises(TrainError, match=r"a_x.png: begins as a does and ends in no number, so its place among those"):
        media_of(dataset)
    path = tmp_path / "items.jsonl"
    path.write_text(
        json.dumps({"image_path_0": "x", "image_path_2": "z", "image_path_1": "y", "caption": "one"}), "utf-8"
    )
    (media,) = media_of(Dataset(image_jsonl_file=str(path), multiple_target=True))
    x, y, z = (str(tmp_path / name) for name in "xyz")
    assert media == Media(x, "one", (), (y, z))
    with pytest.raises(TrainError, match="line 1 cannot be read"):
        media_of(Dataset(image_jsonl_file=str(path)))
    with pytest.raises(TrainError, match="multiple_target is for images; a video has no layers"):
        Dataset(video_directory="a", multiple_target=True)


@pytest.mark.parametrize(
    ("options", "control", "size", "scaled"),
    [
        ({}, (300, 100), (64, 64), (192, 64)),
        ({"enable_bucket": True}, (300, 100), (80, 48), (144, 48)),
        ({"no_resize_control": True}, (300, 100), (288, 96), (288, 96)),
        ({"no_resize_control": True, "control_resolution": (64, 64)}, (300, 100), (96, 32), (96, 32)),
        ({"no_resize_control": True, "control_resolution": (640, 640)}, (300, 100), (288, 96), (288, 96)),
        ({"control_resolution": (1024, 1024)}, (300, 100), (1760, 592), (1776, 592)),
        ({"control_resolution": (1024, 1024)}, (1600, 900), (1360, 768), (1365, 768)),
    ],
)
def test_sizes_of_control_images_are_musubis(options: dict, control: tuple, size: tuple, scaled: tuple):
    """Those that its own code gave, for an image of 96 x 60."""
    found = fit_control(images(resolution=(64, 64), **options), *control, (96, 60))
    assert (found.size, found.scaled) == (size, scaled)


def test_one_size_without_buckets():
    found = fit(images(resolution=(100, 64)), 300, 100)
    assert (found.size, found.scaled, found.box) == ((96, 64), (192, 64), (48, 0, 144, 64))


def test_buckets_are_musubis():
    """Those that its own code gave for 1024 x 1024 and 960 x 544."""
    sizes = bucket_sizes(1024 * 1024, 16)
    assert (1024, 1024) in sizes
    assert (512, 2048) in sizes
    assert all(w % 16 == h % 16 == 0 and w * h <= 1024 * 1024 for w, h in sizes)
    bucketed = images(resolution=(1024, 1024), enable_bucket=True)
    assert fit(bucketed, 1920, 1080).size == (1360, 768)
    assert fit(bucketed, 500, 500).size == (1024, 1024)
    assert fit(images(resolution=(1024, 1024), enable_bucket=True, bucket_no_upscale=True), 500, 333).size == (496, 320)


def by_the_rule(area: int, width: int, height: int) -> tuple[int, int]:
    """Musubi's rule for a bucket, written out: of all sizes of about `area` pixels in steps of 16 the nearest shape."""
    side = math.isqrt(area)
    low, sizes = side // 2 - side // 2 % 16, []
    while low < side + 16:
        other = area // low - area // low % 16
        sizes += [(low, other), (other, low)]
        low += 16
    return min(sorted(sizes), key=lambda size: abs(size[0] / size[1] - width / height))


SIDE = st.integers(64, 4000)


@settings(derandomize=True, deadline=None)
@given(st.integers(64, 1600), st.integers(64, 1600), SIDE, SIDE, st.booleans(), st.booleans(), st.booleans())
def test_videos_are_always_in_buckets(across: int, down: int, width: int, height: int, bucket, no_upscale, video):
    """Images only where they are asked to; and small images stay small where they are asked to, videos never."""
    kind = "video_directory" if video else "image_directory"
    options = {"enable_bucket": bucket, "bucket_no_upscale": no_upscale}
    found = fit(Dataset(**{kind: "here"}, resolution=(across, down), **options), width, height).size
    if not video and not bucket:
        assert found == (across - across % 16, down - down % 16)
    elif not video and no_upscale and width * height <= across * down:
        assert found == (width - width % 16, height - height % 16)
    else:
        assert found == by_the_rule(across * down, width, height)


def test_a_portrait_video_stays_portrait():
    video = Dataset(video_directory="here", resolution=(960, 544))
    assert fit(video, 1080, 1920).size == (544, 960)
    assert fit(images(resolution=(960, 544)), 1080, 1920).size == (960, 544)


@pytest.mark.parametrize("width", [333, 512, 4000])
@pytest.mark.parametrize("height", [257, 512, 3001])
def test_the_scaled_image_covers_its_bucket(width: int, height: int):
    found = fit(images(resolution=(512, 512), enable_bucket=True), width, height)
    left, upper, right, lower = found.box
    assert left >= 0
    assert upper >= 0
    assert right <= found.scaled[0]
    assert lower <= found.scaled[1]
    assert abs(found.scaled[0] / found.scaled[1] - width / height) < 0.02 * width / height


@pytest.mark.parametrize(
    ("settings", "frames", "expected"),
    [
        ({"target_frames": (1, 25, 27)}, 30, [(0, 1), (0, 25)]),
        ({"target_frames": (25,)}, 24, []),
        ({"target_frames": (5,), "frame_extraction": "chunk"}, 17, [(0, 5), (5, 5), (10, 5)]),
        ({"target_frames": (9,), "frame_extraction": "slide", "frame_stride": 4}, 17, [(0, 9), (4, 9), (8, 9)]),
        ({"target_frames": (5,), "frame_extraction": "uniform", "frame_sample": 3}, 12, [(0, 5), (3, 5), (7, 5)]),
        ({"frame_extraction": "uniform", "frame_sample": 23}, 31, [(n * 30 // 22 - (n == 11), 1) for n in range(23)]),
        ({"target_frames": (5,), "frame_extraction": "uniform"}, 12, [(0, 5)]),
        ({"frame_extraction": "full", "max_frames": 50}, 1000, [(0, 49)]),
        ({"frame_extraction": "full"}, 16, [(0, 13)]),
    ],
)
def test_pieces_of_a_video(settings: dict, frames: int, expected: list):
    assert windows(Dataset(video_directory="here", **settings), frames) == expected


@pytest.mark.parametrize(
    ("frames", "rate", "expected"),
    [
        (7, 1.0, [0, 1, 2, 3, 4, 5, 6]),
        (9, 0.5, [0, 2, 4, 6, 8]),
        (10, 16 / 30, [0, 2, 4, 6, 8]),
        (10, 16 / 24, [0, 2, 3, 5, 7, 8, 9]),
        (1, 0.5, [0]),
    ],
)
def test_the_frames_that_musubi_takes_at_another_rate(frames: int, rate: float, expected: list[int]):
    assert at_rate(frames, rate) == expected


def test_a_folder_of_frames_is_a_video(tmp_path):
    """As a `video_path` of Musubi's lists, and beside a caption of its name; another folder is none."""
    for name in ("clip", "other"):
        (tmp_path / name).mkdir()
        for number in (2, 10, 1):
            (tmp_path / name / f"{number:02d}.png").touch()
    (tmp_path / "clip.txt").write_text("a clip")
    (tmp_path / "list.jsonl").write_text('{"video_path": "other/", "caption": "by list"}')
    assert kinds_in(str(tmp_path), ".txt") == (False, True)
    (found,) = media_of(Dataset(video_directory=str(tmp_path)))
    assert (found.path, found.caption) == (str(tmp_path / "clip"), "a clip")
    assert [Path(frame).name for frame in frames_of(found.path)] == ["01.png", "02.png", "10.png"]
    (listed,) = media_of(Dataset(video_jsonl_file=str(tmp_path / "list.jsonl")))
    assert (listed.path, listed.caption) == (str(tmp_path / "other"), "by list")
    with pytest.raises(TrainError, match=r"has no frames, expected images that end in \.png"):
        frames_of(str(tmp_path))
