"""ComfyUI nodes: one file a node, the room `host` beneath them."""
