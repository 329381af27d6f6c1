"""Trackers: learning curves and final figures in TensorBoard, Weights & Biases or MLflow, through their own libraries.

`track: [tensorboard]` in a sweep turns one on. Records stay the truth: a tracker only shows what they will hold, a run's
identity knows nothing of it, and whatever goes wrong with one stops no run. `libraries` says what each tracker needs,
`following` keeps them away from training, and each library has one file.
"""
