"""The payments pipeline as a workload: Headrace's job, the limit program and the peers over the same topic."""
