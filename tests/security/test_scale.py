"""Large files from a stranger: time and memory in proportion to the file, or refused before they are read.

What is bounded here was measured by hand for a million tensors and 100 MB too: see SECURITY.md.
"""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from lyco_testing.hostile import packed
from lyco_testing.measuring import Measured, measure

MB = 1_000_000
LORA = ("lora_down.weight", "lora_up.weight")


def entries(names: Iterable[str], size: int = 4) -> str:
    """Entries of a header for tensors of one number each, of none with a `size` of 0."""
    shape = f"[{size // 4}]" if size == 0 else "[1,1]"
    return ",".join(
        f'"{name}":{{"dtype":"F32","shape":{shape},"data_offsets":[{n * size},{(n + 1) * size}]}}'
        for n, name in enumerate(names)
    )


def loras(modules: int, name: str = "diffusion_model.blocks.{}.self_attn.q") -> str:
    return entries(f"{name.format(n // 2)}.{LORA[n % 2]}" for n in range(2 * modules))


def notes(text: str) -> str:
    return f'{{"__metadata__":{{{text}}}}}'


STEPS: dict[str, tuple[str, Callable[[], str], int]] = {
    # What is done, the header (hundreds of MB in all, so made when they are written), bytes of (sparse) data behind it.
    "100,000 tensors": ("header", lambda: "{" + entries(map(str, range(100_000))) + "}", 400_000),
    "tensors without numbers": ("header", lambda: "{" + entries(map(str, range(100_000)), 0) + "}", 0),
    "100 MB of lists": ("header", lambda: '{"a":[' + "[]," * 33_000_000 + "[]]}", 0),
    "100 MB of one name": ("header", lambda: f'{{"{"a" * 99 * MB}":1}}', 0),
    "30 MB of escapes": ("header", lambda: notes('"a":"' + "\\n" * 15 * MB + '"'), 0),
    "many notes": ("header", lambda: notes(",".join(f'"{n}":""' for n in range(1_000_000))), 0),
    "10,000 modules": ("card", lambda: "{" + loras(10_000) + "}", 80_000),
    "kinds of blocks": ("card", lambda: "{" + loras(5_000, "diffusion_model.k{}x.1") + "}", 40_000),
    "modules to load": ("load", lambda: "{" + loras(4_000) + "}", 32_000),
    "too many tensors": ("card", lambda: "{" + entries(map(str, range(100_001)), 0) + "}", 0),
    "100 MB of tags": (
        "card",
        lambda: notes('"ss_tag_frequency":"[' + "[]," * 33_000_000 + '1]"')[:-1] + "," + loras(1) + "}",
        8,
    ),
    "tags of many parts": (
        "card",
        lambda: notes('"ss_tag_frequency":"[' + "[]," * 1_300_000 + '1]"')[:-1] + "," + loras(1) + "}",
        8,
    ),
    "tags as far as they are read": (
        "card",
        lambda: notes('"ss_tag_frequency":"[' + "1," * 2_000_000 + '1]"')[:-1] + "," + loras(1) + "}",
        8,
    ),
    "100 GB of nothing": (
        "card",
        lambda: '{"x.a.diff":{"dtype":"F32","shape":[25000000000],"data_offsets":[0,100000000000]}}',
        100_000_000_000,
    ),
    "10 TB of nothing": (
        "load",
        lambda: '{"x.a.diff":{"dtype":"F32","shape":[2500000000000],"data_offsets":[0,10000000000000]}}',
        10_000_000_000_000,
    ),
}


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Measured]:
    folder = tmp_path_factory.mktemp("scale")
    jobs: dict[str, tuple[str, Path]] = {}
    for number, (name, (step, header, data)) in enumerate(STEPS.items()):
        path = folder / f"{number}.safetensors"
        path.write_bytes(packed(header()))
        os.truncate(path, path.stat().st_size + data)
        jobs[name] = step, path
    beyond = jobs["above the format's limit"] = "header", folder / "beyond.safetensors"
    beyond[1].write_bytes((100_000_001).to_bytes(8, "little"))
    os.truncate(beyond[1], 200 * MB)
    found = measure(jobs)
    for _, path in jobs.values():
        path.unlink()
    return found


BOUNDS: dict[str, tuple[float, float, str]] = {
    # Seconds, megabytes, what is said.
    "100,000 tensors": (4, 60, "100000 tensors"),
    "tensors without numbers": (4, 60, "100000 tensors"),
    "100 MB of lists": (5, 300, "a: its entry is not JSON"),
    "100 MB of one name": (5, 400, "a name of 99000000 characters"),
    "30 MB of escapes": (4, 120, "0 tensors"),
    "many notes": (5, 100, "over 100000 entries"),
    "10,000 modules": (8, 70, "characters"),
    "kinds of blocks": (8, 60, "characters"),
    "modules to load": (8, 80, "4000 modules"),
    "too many tensors": (5, 60, "holds 100001 tensors, expected an adapter's at most 100000"),
    "100 MB of tags": (5, 300, "characters"),
    "tags of many parts": (3, 60, "characters"),
    "tags as far as they are read": (5, 400, "characters"),
    "100 GB of nothing": (5, 50, "larger than any model has"),
    "10 TB of nothing": (5, 50, "of tensors, the machine has"),
    "above the format's limit": (2, 10, "the format allows 100000000"),
}


@pytest.mark.parametrize("name", BOUNDS)
def test_in_proportion(name: str, measured: dict[str, Measured]):
    seconds, megabytes, said = BOUNDS[name]
    found = measured[name]
    assert said in found.said
    assert found.seconds < seconds
    assert found.megabytes < megabytes


def test_others_may_run_while_a_header_is_read(measured: dict[str, Measured]):
    """json.loads kept them waiting for half of the time, a server for seconds."""
    found = measured["100,000 tensors"]
    assert found.stall < 0.1 + 0.3 * found.seconds
