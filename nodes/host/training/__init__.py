"""Training on a ComfyUI model."""
