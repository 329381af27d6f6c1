"""From a run and its images to an outcome: one loop for CPU and GPU, exact to resume."""
