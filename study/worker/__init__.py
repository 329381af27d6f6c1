"""A worker trains the runs of its share in turn and records each; it survives signals, requeues and lost ranks."""
