"""Smaller forms of a change: adapters from two checkpoints, and of less rank. Approximations, each measured."""
