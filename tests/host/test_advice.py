"""What a node's errors advise is about inputs that it has: of these words the page makes buttons."""

import ast
import importlib
import re

import pytest
from lyco_testing.comfy import ROOT

NODES = [path.stem for path in sorted((ROOT / "nodes").glob("*_*.py")) if not path.stem.startswith("__")]


@pytest.mark.parametrize("name", NODES)
def test_advice_names_inputs_of_the_node_and_values_that_they_take(name: str, pack, host):
    decorators = [
        node
        for node in ast.walk(ast.parse((ROOT / "nodes" / f"{name}.py").read_text("utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "host.acting"
    ]
    assert len(decorators) == 1
    module = importlib.import_module(f"{pack.__name__}.nodes.{name}")
    inputs = {one.id: one for one in getattr(module, name.title().replace("_", "")).define_schema().inputs}
    for named in decorators[0].args:
        for words in getattr(host, named.attr).values():
            for put, value in re.findall(r"\bset (\w+) to (as it is|[\w.-]+)", words.replace("{}", "")):
                assert value in inputs[put].options
            for put, word in re.findall(r"\bswitch (\w+) (on|off)\b", words):
                assert isinstance(inputs[put].default, bool), word
            for put in re.findall(r"\bby this line in (\w+): ", words):
                assert inputs[put].multiline


def test_an_error_goes_by_the_name_of_its_node_and_keeps_its_kind(pack, host):
    errors = importlib.import_module(f"{pack.__name__}.lyco_core.errors")
    node = importlib.import_module(f"{pack.__name__}.nodes.convert_adapter").ConvertAdapter

    def fail(cls):
        raise errors.MergeError("too large", errors.Remedy.AS_LORA)

    with pytest.raises(errors.MergeError) as caught:
        host.acting(host.CONVERT)(fail)(node)
    kind = type(caught.value)
    assert (kind.__module__, kind.__qualname__) == ("builtins", node.define_schema().display_name)
    assert str(caught.value) == "too large; set form to lora"
