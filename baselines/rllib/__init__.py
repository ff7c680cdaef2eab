"""RLlib's offline algorithms as contenders: BC, MARWIL, CQL and IQL of ray[rllib]."""

from baselines.rllib.learner import RLlibBC, RLlibCQL, RLlibIQL, RLlibLearner, RLlibMARWIL

__all__ = ["RLlibBC", "RLlibCQL", "RLlibIQL", "RLlibLearner", "RLlibMARWIL"]
