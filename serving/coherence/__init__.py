"""Do the time limits, retries, drains and queues of a serving chain nest, from the client to the engine? Start at check.py."""
