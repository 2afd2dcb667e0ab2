"""The look: Gradio's theme, the page's scripts and styles, and the files the page may fetch.

Nothing is loaded from another host: plotly.js stands among the assets, in its build for cartesian
plots, a third of what the Python package holds.
"""

from __future__ import annotations

from html import escape
from pathlib import Path

import gradio as gr
from gradio.themes.utils import colors

from merging.system.shipped import ASSETS

SCRIPTS = (
    "pools.js", "plan.js", "map.js", "brush.js", "tools.js", "fields.js", "panel.js", "first.js",
    "histogram.js", "cut.js", "figures.js", "choices.js", "experts.js", "frame.js", "link.js",
    "gradient.js", "tensor.js",
    "chat_store.js", "chat_text.js", "chat_export.js", "chat_blind.js", "chat_tokens.js",
    "chat_board.js", "chat.js",
    "live.js", "history.js", "running.js", "tour.js",
)  # fmt: skip
"""In the order they run: what the first sight needs comes first, and nothing else before it."""
SHEETS = ("style.css", "frame.css", "plots.css", "live.css", "tour.css")
PLOTLY = ASSETS / "plotly-cartesian.min.js"
STREAM = ASSETS / "stream.js"
LOGO = ASSETS / "logo.svg"
FIRST = ASSETS / "first.css"

_SYSTEM = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "sans-serif")
_MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")
_ACCENT = colors.Color(
    name="accent",
    c50="#eaf2fb",
    c100="#d6e6f7",
    c200="#aecdef",
    c300="#84b4e6",
    c400="#559adf",
    c500="#2379cc",
    c600="#0b5cad",
    c700="#094d92",
    c800="#083f77",
    c900="#07335f",
    c950="#052343",
)


def theme() -> gr.themes.Base:
    """White cards on a pale ground, one blue accent, system fonts, readable secondary text."""
    base = gr.themes.Default(
        primary_hue=_ACCENT,
        secondary_hue=_ACCENT,
        neutral_hue=colors.slate,
        font=_SYSTEM,
        font_mono=_MONO,
    )
    return base.set(
        body_background_fill="#f7f8fb",
        body_background_fill_dark="#0b1120",
        body_text_color="#141b2b",
        body_text_color_dark="*neutral_100",
        body_text_color_subdued="#475569",
        body_text_color_subdued_dark="*neutral_300",
        block_info_text_color="#475569",
        block_info_text_color_dark="*neutral_300",
        block_title_text_color="*body_text_color",
        block_title_text_color_dark="*body_text_color",
        block_label_text_color="*body_text_color_subdued",
        block_label_text_color_dark="*body_text_color_subdued",
        block_background_fill="white",
        block_background_fill_dark="#131c2e",
        block_border_color="#dfe5ee",
        block_border_color_dark="#26334a",
        border_color_primary="#dfe5ee",
        border_color_primary_dark="#26334a",
        block_shadow="none",
        block_radius="12px",
        block_title_text_weight="600",
        slider_color="*primary_600",
        slider_color_dark="*primary_400",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover_dark="*primary_500",
        button_primary_text_color="white",
        button_secondary_background_fill="white",
        button_secondary_background_fill_hover="*primary_50",
        button_secondary_background_fill_dark="transparent",
        button_secondary_background_fill_hover_dark="*neutral_800",
        button_secondary_text_color="*primary_600",
        button_secondary_text_color_hover="*primary_700",
        button_secondary_text_color_dark="*primary_300",
        button_secondary_text_color_hover_dark="*primary_200",
        button_secondary_border_color="*primary_600",
        button_secondary_border_color_dark="*primary_400",
        button_border_width="1px",
        input_background_fill="white",
        input_background_fill_dark="#0f1728",
        input_border_color_focus="*primary_500",
        link_text_color="*primary_600",
        link_text_color_dark="*primary_300",
        color_accent="*primary_600",
        color_accent_soft="*primary_50",
        color_accent_soft_dark="#172a46",
    )


def early() -> str:
    """Tags for the head of the page as it is served: sheets, then scripts in the order they run.

    The first script is not deferred: it stands below Gradio's client, whose script may come early.
    """
    sheets = ["theme.css", *(url(path) for path in (*css_paths(), FIRST))]
    links = [f'<link rel="stylesheet" href="{escape(sheet)}">' for sheet in sheets]
    scripts = [f'<script defer src="{escape(url(ASSETS / name))}"></script>' for name in SCRIPTS]
    first = f'<script src="{escape(url(STREAM))}"></script>'
    return "\n".join([*links, first, *scripts])


def late() -> str:
    """The tag that Gradio adds while it loads its own parts: plotly.js, half a second's work."""
    return f'<script src="{escape(url(PLOTLY))}"></script>'


def url(path: Path) -> str:
    """Address of a static file, relative to the page, so that it holds under any root path."""
    return f"gradio_api/file={path.as_posix()}"


def css_paths() -> list[Path]:
    """The project's style sheets."""
    return [ASSETS / name for name in SHEETS]


def static_paths() -> list[Path]:
    """Files that the browser may fetch as they are."""
    return [PLOTLY, STREAM, *(ASSETS / name for name in SCRIPTS), *css_paths(), FIRST, LOGO]
