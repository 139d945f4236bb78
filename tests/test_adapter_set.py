"""What a person sees of a set of adapters, and of one: never its numbers."""

import pytest
from lyco_testing.tables import loha, lokr, lora, musubi_file, random
from lyco_testing.zoo import CASES, Case
from lyco_testing.zoo_on_base import ON_BASE, OnBaseCase

from lyco_core.architectures import identify
from lyco_core.formats import parse


def test_a_set_is_described_in_a_line():
    modules = {f"layers.{n}.attention.to_{x}": (64, 64) for n in range(2) for x in "qkv"}
    found = parse(musubi_file(modules, "lokr", random), {})
    assert repr(found) == "AdapterSet(6 LoKr, Musubi Tuner / kohya (lora_unet_…))"
    assert repr(identify(found, architecture="z_image")) == "AdapterSet(6 LoKr, Z-Image, Musubi's names)"
    mixed = lora("diffusion_model.blocks.0.ffn.0", 8, 8) | loha("diffusion_model.blocks.0.ffn.2", 8, 8)
    described = "AdapterSet(1 LoRA, 1 LoHa, Wan 2.1/2.2, Musubi's names)"
    assert repr(identify(parse(mixed, {}), architecture="wan")) == described
    assert repr(parse(lokr("model", 8, 8), {})) == "AdapterSet(1 LoKr)"
    assert repr(parse({}, {})) == "AdapterSet(no adapters)"


@pytest.mark.parametrize("case", [*CASES, *ON_BASE], ids=lambda c: c.name)
def test_an_adapter_is_described_by_algorithm_shape_and_rank(case: Case | OnBaseCase):
    adapter = case.make()
    rank = "" if adapter.rank is None else f", rank {adapter.rank}"
    shape = ", ".join(str(n) if n else "any" for n in adapter.shape)
    assert repr(adapter) == f"{adapter.title}([{shape}]{rank})"
