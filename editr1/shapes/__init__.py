"""The shapes dataset: generated images and edits whose ground truth is known, and small models to train on them."""
