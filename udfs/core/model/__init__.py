"""The model: its contract and files, why one is refused, the session that scores, and the predictions written."""
