"""Slurm: its client commands, cluster profiles, job arrays and dependent jobs."""
