"""Assigns runs to workers, starts and watches them, takes them back: on this machine or on Slurm."""
