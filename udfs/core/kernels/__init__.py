"""The numba kernels: loops over the events of a batch, in order. Arrays in, arrays out or updated in place.

Compiled once per machine and source version; with NUMBA_DISABLE_JIT=1 they run as plain Python.
"""
