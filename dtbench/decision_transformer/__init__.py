"""Decision Transformer, the subject of the benchmark, and the transformer that other algorithms may build on."""

from dtbench.decision_transformer.agent import DecisionTransformer
from dtbench.decision_transformer.atari import AtariDecisionTransformer
from dtbench.decision_transformer.kv_cache import ActiveEpisodes, KeyValueCache
from dtbench.decision_transformer.model import CausalTransformer
from dtbench.decision_transformer.pretrained import PretrainedDecisionTransformer

__all__ = [
    "ActiveEpisodes",
    "AtariDecisionTransformer",
    "CausalTransformer",
    "DecisionTransformer",
    "KeyValueCache",
    "PretrainedDecisionTransformer",
]
