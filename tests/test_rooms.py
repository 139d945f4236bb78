"""One way through the code: what may import what, from one list, `lyco_testing.rooms`."""

import re
from collections.abc import Mapping, Sequence

from lyco_testing.comfy import ROOT
from lyco_testing.rooms import ROOMS, modules, picture, rank_of, room_of, web_imports

BY_NAME = {
    "lyco_core/__init__.py",  # the face, whose rooms are those that it names to type checkers
    "lyco_core/commands/train.py",  # `nodes/headless.py`, in a ComfyUI
    "lyco_core/io/toml.py",  # Python's own
    "lyco_core/quantized/ggml.py",  # gguf
    "lyco_core/quantized/kitchen.py",  # comfy_kitchen
    "lyco_core/train/distributed.py",  # torch's backends
    "lyco_core/train/optimizers.py",  # people's optimizers
    "lyco_core/train/rates.py",  # and schedules
    "lyco_core/train/trackers.py",  # wandb
    "nodes/__init__.py",  # the nodes, by the names in its list
    "nodes/headless.py",  # ComfyUI
    "nodes/host/training/first_frames.py",  # ComfyUI's nodes, by the names in its table
    "nodes/host/training/sound.py",  # ACE-Step's nodes, by the names in its table
}
"""What imports by a name that it makes, which nothing here can follow, and what that is."""


def upward(imports: Mapping[str, Sequence[str]]) -> list[str]:
    """Imports of a room below one's own, or beside it."""
    return [
        f"{module} imports {other}: {room_of(module)} comes before {room_of(other)}"
        for module, others in imports.items()
        for other in others
        if (ours := room_of(module)) != (theirs := room_of(other)) and rank_of(theirs) >= rank_of(ours)
    ]


def test_a_room_imports_only_rooms_above_it():
    """Also in functions, which put an import off but not away."""
    assert upward(modules()) == []


def test_the_pages_modules_too():
    assert upward(web_imports()) == []


def test_every_file_has_a_room_and_every_room_files():
    files = [*modules(), *web_imports()]
    assert [name for name in files if not room_of(name)] == []
    listed = {f"{folder}/{room}" for folder, rows in ROOMS.items() for rooms in rows for room in rooms.split()}
    assert listed == {room_of(name) for name in files}
    assert sum(len(rooms.split()) for rows in ROOMS.values() for rooms in rows) == len(listed)


def test_no_circles():
    """Inside of rooms neither: nobody has to know in which order two modules of one are imported."""
    imports = modules()
    done: set[str] = set()

    def follow(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " -> ".join([*way[way.index(module) :], module])
        if module not in done:
            for other in imports[module]:
                follow(other, (*way, module))
            done.add(module)

    for module in imports:
        follow(module, ())


def test_what_is_imported_by_a_made_name_is_known():
    found = {
        path.relative_to(ROOT).as_posix()
        for folder in ("lyco_core", "nodes")
        for path in (ROOT / folder).rglob("*.py")
        if re.search(r"\bimport_module\(|\b__import__\(", path.read_text("utf-8"))
    }
    assert found == BY_NAME


def test_the_picture_is_true():
    """`python -m lyco_testing.rooms` prints it anew."""
    assert picture() in (ROOT / "DEVELOPERS.md").read_text("utf-8")
