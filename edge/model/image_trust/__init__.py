"""Whose images this device runs: rules by repository, and proof that a signature demanded by one is there. Pure."""
