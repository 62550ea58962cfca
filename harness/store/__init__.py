"""What runs left: records, attempts, checkpoints, predictions."""
