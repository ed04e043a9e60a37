"""Pretrained weights: each file format's reader, and what becomes of the tensors."""
