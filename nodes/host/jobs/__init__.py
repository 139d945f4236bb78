"""From file to file: merged checkpoints, converted, resized and extracted adapters."""
