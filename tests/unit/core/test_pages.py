"""Markdown reports as pages: nothing of the user's text becomes markup, and a page needs no other file."""

from pathlib import Path

import pytest

from pipeline.core.pages import render_html


def test_tables_headings_lists_and_code_become_html(tmp_path: Path) -> None:
    page = render_html(
        "# T\n\n| a | b |\n| --- | ---: |\n| 1 | `x` |\n\n- one **b**\n- two\n\n## H\ntext", tmp_path
    )
    assert "<title>T</title>" in page
    assert "<h1>T</h1>" in page
    assert "<th>a</th>" in page
    assert "<td>1</td>" in page
    assert "<li>one <strong>b</strong></li>" in page
    assert "<h2>H</h2>\n<p>text</p>" in page


def test_what_a_model_said_cannot_become_markup(tmp_path: Path) -> None:
    said = "<script>alert(1)</script> and `<b>` & more [x](javascript:alert(1))"
    page = render_html(f"# T\n\n- **user** {said}\n\n<img src=x onerror=alert(1)>", tmp_path)
    assert "<script>" not in page
    assert "<img" not in page
    assert 'href="javascript' not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt; and <code>&lt;b&gt;</code> &amp; more" in page


def test_a_heading_cannot_break_out_of_the_title(tmp_path: Path) -> None:
    assert "<title>a&lt;/title&gt;&lt;b&gt;</title>" in render_html("# a</title><b>", tmp_path)


def test_pictures_are_inside_the_page(tmp_path: Path) -> None:
    (tmp_path / "p.png").write_bytes(b"PNG")
    page = render_html("# T\n\n![alt](p.png)", tmp_path)
    assert 'src="data:image/png;base64,UE5H"' in page  # printf PNG | base64
    assert 'alt="alt"' in page


def test_a_picture_that_is_missing_is_an_error_and_one_outside_the_folder_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        render_html("![a](none.png)", tmp_path)
    (tmp_path / "secret.png").write_bytes(b"PNG")
    inner = tmp_path / "inner"
    inner.mkdir()
    assert "base64" not in render_html("![a](../secret.png)", inner)
