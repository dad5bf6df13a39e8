"""Serving: GPU fit, modelcar, gateway and rollout. One folder a capability."""
