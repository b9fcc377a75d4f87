"""The programs that run a network: eager PyTorch, torch.compile and onnxruntime."""
