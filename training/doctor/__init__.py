"""Checks of machine, volumes, data and settings before money is spent; `doctor` shows them all."""
