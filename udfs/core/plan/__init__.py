"""What a declaration comes to before any row is read: stages, tracks of features, the hash of the feature set."""
