"""The pure package: batches in, batches out. Nothing here imports pyflink, mlflow, redis or kafka."""
