"""New versions of an exported model."""

import os
import threading

from serving.publish import drafting, make_base, publish


def test_what_a_killed_export_left_is_deleted_a_day_later(tmp_path):
    """A draft that is younger may be another export's; other folders always stay."""
    for name in ("3", "notes", ".partial-old", ".partial-new"):
        (tmp_path / name).mkdir()
    (tmp_path / ".partial-old" / "half").write_text("half a model")
    for name in ("3", "notes", ".partial-old"):
        os.utime(tmp_path / name, (0, 0))
    with drafting(tmp_path) as draft:
        assert set(tmp_path.glob(".partial-*")) == {tmp_path / ".partial-new", draft}
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [".partial-new", "3", "notes"]


def test_what_is_published_is_readable_by_all(tmp_path):
    """Whatever the umask; a folder of versions that was there keeps its rights."""
    base, old = tmp_path / "base", tmp_path / "old"
    before = os.umask(0o077)
    try:
        old.mkdir()
        make_base(old)
        make_base(base)
        with drafting(base) as draft:
            (draft / "variables").mkdir()
            (draft / "variables" / "index").touch()
            publish(draft, base)
    finally:
        os.umask(before)
    rights = {
        str(path.relative_to(tmp_path)): f"{path.stat().st_mode & 0o777:o}" for path in tmp_path.rglob("*")
    }
    assert rights == {
        "old": "700",
        "base": "755",
        "base/1": "755",
        "base/1/variables": "755",
        "base/1/variables/index": "644",
    }


def test_exports_at_the_same_time_get_versions_of_their_own(tmp_path):
    """Eight that publish ten each: eighty numbers without a gap, each with its own content."""
    published, failures = {}, []

    def work(number):
        try:
            for round_ in range(10):
                with drafting(tmp_path) as draft:
                    (draft / "content").write_text(f"{number} {round_}")
                    published[number, round_] = publish(draft, tmp_path)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert sorted(int(entry.name) for entry in tmp_path.iterdir()) == list(range(1, 81))
    for (number, round_), version in published.items():
        assert (version / "content").read_text() == f"{number} {round_}"
