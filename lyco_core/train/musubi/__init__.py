"""Musubi Tuner's command lines and configurations, and what becomes here of each option in them."""
