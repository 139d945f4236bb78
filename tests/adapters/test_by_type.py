"""What goes by an adapter's type has an answer for every algorithm, or says by name that there is none."""

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator

import pytest
from lyco_testing.zoo import CASES, normal
from lyco_testing.zoo_on_base import ON_BASE

import lyco_core
from lyco_core.adapters import (
    ALGORITHMS,
    LOW_RANK,
    Adapter,
    Additive,
    ByType,
    DoRA,
    LoRA,
    OnBase,
    lora_rank,
    to_loha,
    to_lora,
)
from lyco_core.approximate.nearest import NEAREST
from lyco_core.cli import main
from lyco_core.formats import TENSOR_SUFFIXES
from lyco_core.train.trainable import TRAINABLES


def _subclasses(cls: type[Adapter]) -> Iterator[type[Adapter]]:
    for sub in cls.__subclasses__():
        yield sub
        yield from _subclasses(sub)


for module in pkgutil.walk_packages(lyco_core.__path__, "lyco_core."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
EVERY = {
    cls.__name__: cls
    for cls in _subclasses(Adapter)
    if not inspect.isabstract(cls) and cls.__module__.startswith("lyco_core.")
}
ALL = {function.name.removeprefix("lyco_core."): function for function in ByType.ALL if "lyco_core." in function.name}
ZOO = [case.make() for case in [*CASES, *ON_BASE]]


def test_every_algorithm_has_forms_that_the_tests_try():
    tried = {type(adapter).__name__ for adapter in ZOO}
    assert tried == EVERY.keys(), "give each a case in lyco_testing/zoo.py, or in zoo_on_base.py"


def test_every_algorithm_that_a_key_names_is_found():
    """What a file's tensors are made into is looked up there."""
    lacking = {algorithm for algorithm, _ in TENSOR_SUFFIXES.values()} - {"dora", "bora"} - ALGORITHMS.keys()
    assert not lacking, "formats/suffixes.py names them; list their classes in ALGORITHMS of adapters/__init__.py"


def test_every_function_is_seen():
    assert set(ALL) == {
        "adapters.lora.to_lora",
        "adapters.lora.lora_rank",
        "adapters.loha.to_loha",
        "adapters.same.changes_nothing",
        "adapters.scaling.with_scale",
        "approximate.less_rank.resized",
        "approximate.lora.svd_of",
        "beside.settle.effect_of",
    }


@pytest.mark.parametrize("function", ALL.values(), ids=ALL)
@pytest.mark.parametrize("cls", EVERY.values(), ids=EVERY)
def test_every_function_knows_every_algorithm(function: ByType, cls: type[Adapter]):
    assert function.knows(cls), f"{cls.__name__}: register what {function.name} answers for it"


@pytest.mark.parametrize("cls", EVERY.values(), ids=EVERY)
def test_an_adapter_is_of_one_kind(cls: type[Adapter]):
    assert issubclass(cls, Additive) != issubclass(cls, OnBase)


def test_what_a_low_rank_makes_small_can_be_extracted_and_trained(capsys: pytest.CaptureFixture[str]):
    assert NEAREST.keys() == TRAINABLES.keys() == LOW_RANK.keys()
    with pytest.raises(SystemExit):
        main(["extract", "--as", "nothing"])
    choices = capsys.readouterr().err.partition("choose from ")[2].partition(")")[0]
    assert set(re.findall(r"\w+", choices)) == LOW_RANK.keys()


def test_an_algorithm_without_an_answer_is_told_by_name():
    class New(Additive):
        algorithm = "new"
        rank = None
        tensor_names = ()
        shape = (2, 3)

        def check(self):
            pass

        def apply(self, x):
            raise AssertionError

        def rows(self, start, stop):
            return self

        def _add_to_(self, flat, factor):
            raise AssertionError

    for function in (to_lora, to_loha, lora_rank):
        assert not function.knows(New)
        with pytest.raises(NotImplementedError, match=rf"{function.name} knows no New; register"):
            function(New())


def test_what_derives_from_a_known_algorithm_is_known():
    class Special(LoRA):
        pass

    assert to_lora(Special(normal(4, 2), normal(2, 3))).rank == 2
    assert to_loha(DoRA.of(Special(normal(4, 2), normal(2, 3)), normal(4, 1))) is None
