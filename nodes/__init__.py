"""ComfyUI nodes: one file a node, `host.py` beneath them."""
