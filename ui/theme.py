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
from ui.bundle import Bundle, bundle, joined

SIGHT = (
    "pools.js", "plan.js", "map.js", "brush.js", "tools.js", "fields.js", "panel.js", "first.js",
)  # fmt: skip
"""What draws the first sight, in the order it runs. It stands in the page itself."""
SCRIPTS = (
    "beside.js",
    "histogram.js", "cut.js", "figures.js", "choices.js", "experts.js", "frame.js", "link.js",
    "gradient.js", "tensor.js", "editor.js",
    "chat_store.js", "chat_text.js", "chat_export.js", "chat_blind.js", "chat_tokens.js",
    "chat_board.js", "chat.js",
    "live.js", "history.js", "running.js", "tour.js",
)  # fmt: skip
"""The others, in the order they run."""
SHEETS = ("style.css", "frame.css", "plots.css", "live.css", "tour.css")
PLOTLY = ASSETS / "plotly-cartesian.min.js"
STREAM = ASSETS / "stream.js"
LOGO = ASSETS / "logo.svg"

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


def scripts() -> Bundle:
    """The page's own scripts but those of its first sight."""
    return bundle(ASSETS / name for name in SCRIPTS)


def early() -> str:
    """For the head of the page as it is served: the sheets that its first sight needs, in place,
    and the first of all scripts, below Gradio's client, whose script may come early."""
    sheets = joined(ASSETS / name for name in ("style.css", "frame.css", "plots.css", "first.css"))
    variables = theme()._get_theme_css()  # what Gradio answers for theme.css
    return f"<style>{variables}{sheets}</style>\n<script>{joined([STREAM])}</script>\n"


def sight() -> str:
    """The scripts that draw the first sight, to stand below its frame."""
    return f"<script>{joined(ASSETS / name for name in SIGHT)}</script>\n"


def late() -> str:
    """The tag that Gradio adds while it loads its own parts: plotly.js, half a second's work."""
    return f'<script src="{escape(url(PLOTLY))}"></script>'


def after() -> str:
    """Tags below the first sight: the other scripts."""
    return f'<script defer src="{escape(scripts().name)}"></script>\n'


def url(path: Path) -> str:
    """Address of a static file, relative to the page, so that it holds under any root path."""
    return f"gradio_api/file={path.as_posix()}"


def css_paths() -> list[Path]:
    """The project's style sheets."""
    return [ASSETS / name for name in SHEETS]


def static_paths() -> list[Path]:
    """Files that the browser may fetch as they are."""
    return [PLOTLY, LOGO]
