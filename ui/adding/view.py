"""What is shown of a model before it is added, and of a download.

Everything that comes from a file, the Hub or a person goes through `html.escape`.
"""

from __future__ import annotations

from html import escape

from merging.checkpoints import Checkpoint
from merging.errors import one_line
from merging.hub.listing import Listing
from merging.hub.references import SHORT
from merging.kinship import misfit, other_vocabulary
from ui.added import AddedModel
from ui.jobs import Job
from ui.units import amount, count, span

_TYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float64"}


def facts(listing: Listing, fit: str, base: str, free_bytes: int) -> str:
    """A list of what is known of a model.

    Args:
        fit: whether it can be merged onto the base, as `fit` says it.
        base: what the base is called.
        free_bytes: of the disk that it would be fetched to.
    """
    yes = "yes" if listing.has_template else "no: plain completion"
    rows = {
        **_source(listing),
        "Architecture": listing.architecture,
        "Parameters": count(listing.outline.parameters),
        "Type": ", ".join(_TYPES.get(part, part) for part in listing.dtype.split(", ")),
        **_size(listing, free_bytes),
        "Licence": listing.card.licence or "not stated in its model card",
        "Chat template": yes,
        "Context": f"{listing.context:,} tokens" if listing.context else "not stated",
        "Made from": ", ".join(listing.card.bases) or "not stated",
        f"Fits {base}": fit,
    }
    lines = "".join(
        f"<dt>{escape(title)}</dt><dd>{escape(one_line(value))}</dd>"
        for title, value in rows.items()
    )
    return f'<dl class="listing">{lines}</dl>'


def fit(base: Checkpoint, outline: Checkpoint) -> str:
    """Whether a model can be merged onto a base, by configs and headers."""
    if reason := misfit(base, outline):
        return f"no: {reason}"
    rows = other_vocabulary(base, outline)
    return f"yes; its vocabulary has {rows}" if rows else "yes, by its shapes"


def _source(listing: Listing) -> dict[str, str]:
    repository = listing.repository
    if repository is None:
        return {"Folder": str(listing.outline.folder)}
    revision = repository.asked.revision or "the main branch"
    commit = repository.snapshot.commit
    rows = {"Hub": listing.name}
    if revision != commit:
        rows["Revision"] = revision
    return {**rows, "Commit": commit}


def _size(listing: Listing, free_bytes: int) -> dict[str, str]:
    repository = listing.repository
    if repository is None:
        return {"Size": amount(listing.size_bytes)}
    missing = repository.missing_bytes
    if not missing:
        return {"Size": f"{amount(listing.size_bytes)}, all in the Hub's cache"}
    whole = amount(listing.size_bytes)
    size = whole if amount(missing) == whole else f"{amount(missing)} of {whole}"
    return {"Size": f"{size} to download", "Free disk": amount(free_bytes)}


def seen(listing: Listing) -> str:
    """What was found, in a line."""
    what = f"{listing.name}: {count(listing.outline.parameters)} parameters"
    return escape(f"{what}. Nothing is loaded yet.")


def progress(job: Job | None) -> str:
    """How far a download is; "" where there is none."""
    if job is None or job.is_over:
        return ""
    at = job.progress
    if at is None:
        state = "waits for another download" if job.state == "waiting" else "asking the Hub"
        return f'<p class="quiet">{escape(job.title)}: {state}</p>'
    share = min(1.0, at.done / at.total) if at.total else 0.0
    came = at.done - job.details.get("began", at.done)
    rate = came / job.seconds if job.seconds > 1 else 0.0
    left = f" · {span((at.total - at.done) / rate)} left" if rate else ""
    percent = f"{share:.0%}"
    return (
        f'<div class="bar" role="progressbar" aria-label="Download of {escape(job.title)}" '
        f'aria-valuemin="0" aria-valuemax="100" aria-valuenow="{percent[:-1]}">'
        f'<span style="width: {percent}"></span></div>'
        f'<p class="quiet">{percent}, {amount(at.done)} of {amount(at.total)}{left}</p>'
    )


def title(model: AddedModel, *, is_under_way: bool) -> str:
    """What a list calls a model that was added."""
    if not model.repo:
        return model.folder
    state = "" if model.is_whole else " (downloading)" if is_under_way else " (stopped)"
    licence = f", {model.licence}" if model.licence else ""
    return f"{model.repo}@{model.commit[:SHORT]}{licence}{state}"
