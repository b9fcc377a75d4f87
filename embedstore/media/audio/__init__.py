"""From the bytes of a sound to its samples, or a reason why not."""
