# Each of demo, test and gpu sets up what it needs in .venv and works in a fresh clone.
PYTHON ?= python3
BIN := .venv/bin
COMFYUI := $(shell PYTHONPATH=tests/support $(PYTHON) -m lyco_testing.comfy 2>/dev/null)

# In two processes, a file's tests in one of them; each has servers and a browser of its own. Of one thread each: where
# threads outnumber cores, torch's wait for each other and take twice the time.
# In their order, or the files of one long test would come last, in one process while the other has none. What Python
# compiles is kept, or each process that they start compiles the pack anew.
PYTEST := OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -rs
TWO := -n 2 --dist loadfile --no-loadscope-reorder --max-worker-restart=0

.PHONY: demo test core lint host-requirements further-hosts gpu clean

demo: .venv/core
	$(BIN)/lyco demo

test: lint host-requirements core
	$(PYTEST) -m host $(TWO)
	$(MAKE) further-hosts

# What every ComfyUI must do, in each of COMFYUI_PATHS, with the packages of the first.
further-hosts: .venv/test
	for comfyui in $(subst :, ,$(COMFYUI_PATHS)); do \
	  COMFYUI_PATH=$$comfyui $(BIN)/python -m pytest -rs -m every_host || exit 1; \
	done

# Without a look at the folders of which all tests need a ComfyUI: each process would read them for nothing.
core: .venv/test
	$(PYTEST) -m "not host" --ignore=tests/host --ignore=tests/browser $(TWO)

lint: .venv/test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

# ComfyUI's own requirements, if a ComfyUI is there; the host tests say what they still lack.
# torchaudio's releases lag behind torch's, so it comes without its own idea of torch.
host-requirements: .venv/test
ifneq ($(COMFYUI),)
	grep -vxE 'torch|torchvision|torchaudio' "$(COMFYUI)/requirements.txt" > .venv/comfyui.txt
	-$(BIN)/pip install --quiet torchvision -r .venv/comfyui.txt
	-$(BIN)/pip install --quiet --no-deps torchaudio
endif

# With $(PYTHON) if it has a torch, which on a machine with a card is the one for that card, else with .venv's.
ifneq ($(filter gpu,$(MAKECMDGOALS)),)
HAS_TORCH := $(shell $(PYTHON) -c 'import importlib.util as i; print(i.find_spec("torch") and 1 or "")' 2>/dev/null)
endif
gpu: $(if $(HAS_TORCH),,.venv/core)
	$(if $(HAS_TORCH),$(PYTHON),$(BIN)/python) benchmarks/gpu $(ARGS)

.venv/core: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -e .
	touch $@

.venv/test: .venv/core
	$(BIN)/pip install --quiet -e ".[test]"
	touch $@

clean:
	rm -rf .venv build *.egg-info
