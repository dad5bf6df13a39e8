"""The local stack: Postgres, MLflow, Prefect with a worker, vLLM and Envoy on loopback, supervised by supervisord."""
