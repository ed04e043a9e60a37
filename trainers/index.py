"""`rll index`: a gallery's index, for approximate search."""

from __future__ import annotations

from pathlib import Path

from serving.index import build_index, effort_name


def index(gallery: Path, to: Path, *, kind: str | None = None, recall: float = 0.95) -> None:
    """Write the index and print its kind, and its recall against exact search.

    The arguments are those of `rll index --help`.

    Raises:
        ValueError: `gallery` is no gallery, `to` exists, or FAISS knows no such kind or needs more rows.
        ImportError: faiss or pyarrow is not installed.
    """
    built = build_index(gallery, to, kind=kind, target_recall=recall)
    effort = "" if built["effort"] is None else f", {effort_name(built['kind'])} {built['effort']}"
    print(f"{built['kind']} of {built['rows']:,} rows of {built['dim']} numbers{effort}")
    print(
        f"recall@10 {built['recall@10']:.3f} against exact search, of {built['queries']:,} rows "
        "searched for among the others"
    )
    print(f"index: {to}")
