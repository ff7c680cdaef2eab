"""What people write beside scores: code and bold text are shown as such, all else as it is."""

import pytest

from dtbench.analysis.page.prose import prose_html, prose_markdown

CASES = {
    "plain": ("a < b & c", "a &lt; b &amp; c", r"a \< b & c"),
    "code": ("suite `graph_1`", "suite <code>graph_1</code>", "suite `graph_1`"),
    "no name of code": ("suite `a | <b>`", "suite `a | &lt;b&gt;`", r"suite \`a \| \<b>\`"),
    "bold": ("**DT, a_b:** 3", "<strong>DT, a_b:</strong> 3", r"**DT, a\_b:** 3"),
    "code in bold": ("**see `x`**", "<strong>see <code>x</code></strong>", "**see `x`**"),
    "a power": ("2 ** 3 ** 4", "2 ** 3 ** 4", r"2 \*\* 3 \*\* 4"),
    "one that never ends": ("**open `code", "**open `code", r"\*\*open \`code"),
    "two": ("**a** and **b**", "<strong>a</strong> and <strong>b</strong>", "**a** and **b**"),
}


@pytest.mark.parametrize(("text", "html", "markdown"), CASES.values(), ids=CASES.keys())
def test_marks_become_code_and_bold_text_and_all_else_stays(text: str, html: str, markdown: str) -> None:
    assert prose_html(text) == html
    assert prose_markdown(text) == markdown
