"""The report's Markdown as HTML: nothing of the user's text becomes markup."""

from pathlib import Path

from pipeline.core.pages import render_html


def test_tables_headings_lists_and_code_become_html(tmp_path: Path) -> None:
    page = render_html(
        "# T\n\n| a | b |\n| --- | ---: |\n| 1 | `x` |\n\n- one **b**\n- two\n\n## H\ntext", tmp_path
    )
    assert "<title>T</title>" in page
    assert "<h1>T</h1>" in page
    assert "<tr><th>a</th><th>b</th></tr>" in page
    assert "<ul><li>one <b>b</b></li><li>two</li></ul>" in page
    assert "<h2>H</h2><p>text</p>" in page


def test_what_a_model_said_cannot_become_markup(tmp_path: Path) -> None:
    page = render_html("# T\n\n- **user** <script>alert(1)</script> and `<b>` & more", tmp_path)
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt; and <code>&lt;b&gt;</code> &amp; more" in page


def test_pictures_are_inside_the_page(tmp_path: Path) -> None:
    (tmp_path / "p.png").write_bytes(b"PNG")
    page = render_html("# T\n\n![alt](p.png)", tmp_path)
    assert 'src="data:image/png;base64,UE5H"' in page  # printf PNG | base64
