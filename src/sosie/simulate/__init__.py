"""A marketplace with ground truth."""
