"""Approximations of a change, each measured: an adapter from two checkpoints, and one of less rank."""
