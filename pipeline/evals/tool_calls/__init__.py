"""Scoring of tool calls for any set of tools: parse, schema, decision, selection, arguments, state, reply."""

from pipeline.evals.tool_calls.codes import LAYERS, layer_of
from pipeline.evals.tool_calls.parsers import parse_text
from pipeline.evals.tool_calls.prediction import PredictedCall, Prediction, read_calls
from pipeline.evals.tool_calls.scoring import CaseScore, CaseScorer, Profile, score_case

__all__ = [
    "LAYERS",
    "CaseScore",
    "CaseScorer",
    "PredictedCall",
    "Prediction",
    "Profile",
    "layer_of",
    "parse_text",
    "read_calls",
    "score_case",
]
