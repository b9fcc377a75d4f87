"""What turns files into arrays, by modality."""
