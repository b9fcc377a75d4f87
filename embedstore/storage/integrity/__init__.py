"""Recovery, verification, repair, backup."""
