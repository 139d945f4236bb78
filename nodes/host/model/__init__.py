"""Adapters on a model that ComfyUI holds: patched, beside its weights, or merged into them."""
