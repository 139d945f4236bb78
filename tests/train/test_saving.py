"""A saved network is Musubi's file: names, alphas, metadata, hashes; and it reads back as what was trained."""

import datetime
import hashlib
import json
import os
import signal
from pathlib import Path

import pytest
import torch
from lyco_testing.tables import ARCHITECTURE_OF, MODELS, weights
from lyco_testing.toy import flux1, z_image
from lyco_testing.toy import learned as network
from safetensors import safe_open
from safetensors.torch import save as library_save

from lyco_core.adapter_reader import load_adapter_set
from lyco_core.architectures import ARCHITECTURES
from lyco_core.errors import AdapterError, FileError, TrainError
from lyco_core.formats import FORMATS
from lyco_core.io import read_header
from lyco_core.model import Model
from lyco_core.train.network import Network
from lyco_core.train.network_options import NetworkOptions
from lyco_core.train.saving import STORAGE_DTYPES, ModelSpec, save_network
from lyco_core.train.targets import choose_targets

OPTIONS = {
    "lora": NetworkOptions("lora", 3, 2.0),
    "loha": NetworkOptions("loha", 3, 2.0),
    "lokr": NetworkOptions("lokr", 2, 1.5, factor=2),
    "lokr, full": NetworkOptions("lokr", 64, 2.0),
}
every_option = pytest.mark.parametrize("options", OPTIONS.values(), ids=list(OPTIONS))
RUN = {"ss_steps": "120", "ss_epoch": "3", "ss_learning_rate": "0.0001", "ss_network_dropout": "None"}


@every_option
@pytest.mark.parametrize("shapes", [z_image(), flux1()], ids=["z_image", "flux1"])
def test_it_reads_back_as_what_was_trained(options: NetworkOptions, shapes: dict, tmp_path: Path):
    made = network(options, shapes)
    save_network(tmp_path / "a.safetensors", made, ModelSpec("a"), RUN)
    found, expected = load_adapter_set(tmp_path / "a.safetensors"), made.adapter_set()
    assert (found.format, found.layout, found.architecture) == (FORMATS["musubi"], "musubi", made.choice.architecture)
    assert set(found.adapters) == set(expected.adapters)
    assert found.prefixes == expected.prefixes
    assert not found.unrecognised
    for path, adapter in expected.adapters.items():
        again = found.adapters[path]
        assert again.algorithm == options.algorithm
        assert (again.alpha, again.scale) == (adapter.alpha, adapter.scale)
        assert again.tensors.keys() == adapter.tensors.keys()
        assert all(torch.equal(tensor, again.tensors[name]) for name, tensor in adapter.tensors.items())


SUFFIXES = {
    "lora": {"alpha", "lora_down.weight", "lora_up.weight"},
    "loha": {"alpha", "hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"},
    "lokr": {"alpha", "lokr_w1", "lokr_w2_a", "lokr_w2_b"},
    "lokr, full": {"alpha", "lokr_w1", "lokr_w2"},
}


@pytest.mark.parametrize("form", OPTIONS)
@pytest.mark.parametrize("precision", STORAGE_DTYPES)
def test_names_dtypes_and_order_are_musubis(form: str, precision: str, tmp_path: Path):
    save_network(
        tmp_path / "a.safetensors", network(OPTIONS[form]), ModelSpec("a"), RUN, dtype=STORAGE_DTYPES[precision]
    )
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    modules = {f"lora_unet_{name}.{suffix}" for name in NAMES for suffix in SUFFIXES[form]}
    assert set(tensors) == modules
    assert {tensor.dtype for tensor in tensors.values()} == {STORAGE_DTYPES[precision]}
    alphas = [tensor for key, tensor in tensors.items() if key.endswith(".alpha")]
    expected = OPTIONS[form].network_dim if form == "lokr, full" else OPTIONS[form].network_alpha
    assert all(alpha.shape == () and float(alpha) == expected for alpha in alphas)
    assert list(read_header(tmp_path / "a.safetensors").tensors) == sorted(tensors)


NAMES = [
    f"layers_{n}_{name}"
    for n in (0, 1)
    for name in (
        *(f"attention_{part}" for part in ("to_q", "to_k", "to_v", "to_out_0")),
        *(f"feed_forward_w{i}" for i in (1, 2, 3)),
    )
]


def metadata_of(path: Path) -> dict[str, str]:
    return dict(read_header(path).metadata)


def test_metadata(tmp_path: Path):
    path = tmp_path / "a.safetensors"
    options = NetworkOptions("lokr", 2, 1.5, rank_dropout=0.1, exclude_patterns=[".*to_v"])
    spec = ModelSpec("My style", (832, 480), author="me", tags="a, b", timestep_range=(0, 900))
    before = datetime.datetime.now().replace(microsecond=0)
    save_network(path, network(options), spec, RUN)
    found = metadata_of(path)
    date = datetime.datetime.fromisoformat(found.pop("modelspec.date"))
    assert before <= date <= datetime.datetime.now()
    assert json.loads(found.pop("ss_network_args")) == {
        "factor": "-1", "rank_dropout": "0.1", "exclude_patterns": "['.*to_v']",
    }  # fmt: skip
    assert len(found.pop("sshs_model_hash")) == 64
    assert len(found.pop("sshs_legacy_hash")) == 8
    assert found == RUN | {
        "ss_base_model_version": "z_image",
        "ss_network_module": "networks.lokr",
        "ss_network_dim": "2",
        "ss_network_alpha": "1.5",
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": "Z-Image/lora",
        "modelspec.implementation": "https://github.com/Tongyi-MAI/Z-Image",
        "modelspec.title": "My style",
        "modelspec.resolution": "832x480",
        "modelspec.author": "me",
        "modelspec.tags": "a, b",
        "modelspec.timestep_range": "0,900",
        "lyco_architecture": "z_image",
    }


def test_what_the_run_says_wins(tmp_path: Path):
    path = tmp_path / "a.safetensors"
    save_network(path, network(OPTIONS["loha"]), ModelSpec("a"), {"ss_base_model_version": "qwen_image_edit"})
    found = metadata_of(path)
    assert found["ss_base_model_version"] == "qwen_image_edit"
    assert "ss_network_args" not in found
    assert found["modelspec.resolution"] == "1024x1024"


VERSIONS = {
    "flux1_kontext": ("flux_kontext", "Flux.1-dev", "1280x720", "lora_flux"),
    "flux2_dev": ("flux_2_dev", "Flux.2-dev", "1280x720", "lora_flux_2"),
    "flux2_klein_4b": ("flux_2_klein_4b", "Flux.2-klein-4b", "1280x720", "lora_flux_2"),
    "flux2_klein_9b": ("flux_2_klein_9b", "Flux.2-klein-9b", "1280x720", "lora_flux_2"),
    "framepack": ("framepack", "framepack", "1280x720", "lora_framepack"),
    "hunyuan_video": ("hunyuan_video", "hunyuan-video", "1280x720", "lora"),
    "hunyuan_video_1_5": ("hunyuan_video_1_5", "hunyuan-video-1.5", "1280x720", "lora_hv_1_5"),
    "qwen_image": ("qwen_image", "Qwen-Image", "1328x1328", "lora_qwen_image"),
    "wan21_i2v_14b": ("wan", "wan2.1", "1280x720", "lora_wan"),
    "z_image": ("z_image", "Z-Image", "1024x1024", "lora_zimage"),
}


@pytest.mark.parametrize("model", [m for m in MODELS if m in VERSIONS])
def test_every_architecture_goes_by_musubis_names(model: str, tmp_path: Path):
    options = NetworkOptions("lora", 1, exclude_patterns=[".*"], include_patterns=[r".*\.0\..*(q|qkv)"])
    family = ARCHITECTURES[ARCHITECTURE_OF[model]]
    choice = choose_targets(Model.of(weights(model)), options, architecture=family)
    save_network(tmp_path / "a.safetensors", Network.initial(choice, options), ModelSpec("a"), {})
    found = metadata_of(tmp_path / "a.safetensors")
    version, architecture, resolution, module = VERSIONS[model]
    assert found["ss_base_model_version"] == version
    assert found["modelspec.architecture"] == f"{architecture}/lora"
    assert found["modelspec.resolution"] == resolution
    assert found["ss_network_module"] == f"networks.{module}"
    assert found["lyco_architecture"] == family.id


def test_the_hash_is_of_what_the_library_writes(tmp_path: Path):
    path = tmp_path / "a.safetensors"
    save_network(path, network(OPTIONS["loha"]), ModelSpec("a"), RUN)
    with safe_open(path, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    written = library_save(tensors)
    data = written[8 + int.from_bytes(written[:8], "little") :]
    assert metadata_of(path)["sshs_model_hash"] == hashlib.sha256(data).hexdigest()
    assert path.read_bytes().endswith(data)


def test_numbers_that_are_none_are_not_saved(tmp_path: Path):
    made, path = network(OPTIONS["loha"]), tmp_path / "a.safetensors"
    with torch.no_grad():
        made.trainables["layers.1.attention.to_q"].w1_b[0, 0] = 1e5
    with pytest.raises(
        AdapterError,
        match=r"to_q\.hada_w1_b: its 100000 is beyond what float16 holds, 65504; store it as bfloat16 or fl",
    ):
        save_network(path, made, ModelSpec("a"), RUN, dtype=torch.float16)
    save_network(path, made, ModelSpec("a"), RUN, dtype=torch.bfloat16)
    with torch.no_grad():
        made.trainables["layers.1.attention.to_q"].w1_b[0, 0] = float("nan")
    before = path.read_bytes()
    with pytest.raises(TrainError, match="NaN or infinite: training diverged; lower the learning rate"):
        save_network(path, made, ModelSpec("a"), RUN, overwrite=True)
    assert path.read_bytes() == before


def test_a_file_that_is_there_is_kept_unless_asked(tmp_path: Path):
    path = tmp_path / "a.safetensors"
    save_network(path, network(OPTIONS["lora"]), ModelSpec("a"), RUN)
    with pytest.raises(FileError, match="is there already"):
        save_network(path, network(OPTIONS["lora"]), ModelSpec("b"), RUN)
    save_network(path, network(OPTIONS["lora"]), ModelSpec("b"), RUN, overwrite=True)
    assert metadata_of(path)["modelspec.title"] == "b"


def test_a_full_disk_leaves_what_was_saved_before(tmp_path: Path):
    """A limit on the size of files stands in for it."""
    resource = pytest.importorskip("resource", reason="this system knows no limits")
    path = tmp_path / "a.safetensors"
    save_network(path, network(OPTIONS["lora"]), ModelSpec("a"), RUN)
    before, limits = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
        with pytest.raises(FileError, match="cannot be written"):
            save_network(path, network(OPTIONS["loha"]), ModelSpec("b"), RUN, overwrite=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.safetensors"]
