"""Run from the folder above with the simulators' interpreter: `python -m unittest`."""
