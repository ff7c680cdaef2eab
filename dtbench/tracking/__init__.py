"""Trials for trackers of experiments: TensorBoard, Weights & Biases, MLflow; nothing leaves the machine."""
