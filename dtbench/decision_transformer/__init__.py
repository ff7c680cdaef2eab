"""Decision Transformer: the subject of the benchmark."""

from dtbench.decision_transformer.agent import DecisionTransformer
from dtbench.decision_transformer.atari import AtariDecisionTransformer

__all__ = ["AtariDecisionTransformer", "DecisionTransformer"]
