"""Evaluation: reports, gate statistics, and the runners of lm-eval and promptfoo. One folder a suite."""
