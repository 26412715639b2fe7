"""Judgements as training data: exported from the lake, pinned, parted by product, learnt from and measured by."""
