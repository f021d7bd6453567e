"""From a history of raw events to a registered model, and from the registry back to a checked model folder.

Imports of this package go to `udfs.core` and third parties only.
"""
