"""Compiled kernels, one module for each path that has them; imported at first use."""
