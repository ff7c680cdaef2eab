"""Decision Transformer: the subject of the benchmark."""

from dtbench.decision_transformer.agent import DecisionTransformer

__all__ = ["DecisionTransformer"]
