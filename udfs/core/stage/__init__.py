"""One featurize stage in one lane: its order, its stores, its joins and waits, and the rows with features."""
