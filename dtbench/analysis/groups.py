"""Groups of suites: the paper's questions first, what serves to answer them after."""

from collections.abc import Collection, Mapping
from typing import Any

from dtbench.suite.loading import read_document, suite_names

GROUPS = {
    "questions": "The paper's questions",
    "other": "Other suites",
    "ablations": "Ablations",
    "checks": "Checks",
    "searches": "Searches",
}
ANSWERING = ("questions", "other")  # the groups whose numbers answer the page's question


def group_of(suite: Mapping[str, Any], searches: Collection[str] = ()) -> str:
    """Return the group that a suite declares, else that of the shipped suite of its name; `searches` have names too.

    A suite that was kept as <suite>-<preset> counts as <suite>.
    """
    name, preset = str(suite.get("name") or ""), str(suite.get("preset") or "")
    declared = suite.get("group")
    for shipped in (name, name.removesuffix(f"-{preset}")):
        if declared in (None, "other") and shipped in suite_names():
            declared = read_document(shipped).get("group")
    if declared in (None, "other") and name in searches:
        return "searches"
    return str(declared) if declared in GROUPS else "other"
