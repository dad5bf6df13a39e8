"""Rollout: a canary in steps with an analysis a step, and automatic undo."""
