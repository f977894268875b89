"""The shapes dataset: generated images and edits with known ground truth, and small models to train on them."""
