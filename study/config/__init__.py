"""What a user writes, read strictly: options, sweeps, runs."""
