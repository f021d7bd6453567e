"""What a pipeline declares, as frozen models: contract, conditions, windows, feature groups, joins, sinks."""
