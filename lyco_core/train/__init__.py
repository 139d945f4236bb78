"""Training of adapters, free of ComfyUI: trainable factors on a frozen model."""
