"""Trackers: learning curves and final metrics in TensorBoard, Weights & Biases or MLflow, through their own libraries.

`track: [tensorboard]` in a sweep enables one. Records are the source of truth and trackers mirror them: a run's identity
does not depend on its trackers, and no failure of a tracker stops a run.
"""
