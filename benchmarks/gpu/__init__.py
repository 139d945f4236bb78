"""What the pack does on this machine's device: right or not, how fast, in how much memory."""
