"""Operators: plain torch modules, and beside each a formula for what it costs.

The modules mention torch and each other only, so that an exported network can carry
their source.
"""
