"""Additions to torch on a CPU: compiled kernels, and memory that the process keeps.

Everything here is optional: without a compiler, or on another C library, training is slower and its results are torch's own.
"""
