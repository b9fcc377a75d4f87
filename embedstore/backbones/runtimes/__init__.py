"""What executes a backbone: eager PyTorch, onnxruntime, compiled."""
