"""The ledger that faults are judged by sees what is lost, doubled or wrong."""

import json

from tests.support.fault_report import recovery_p95_s, table
from tests.support.fault_trial import Outcome
from tests.support.ledger import Discrepancies, compare, is_disputed
from tests.support.manifests import Manifest, make_manifest


def written(manifest: Manifest) -> tuple[list[bytes], list[bytes]]:
    """What an export and its errors are when all is well."""
    results, errors = [], []
    offsets = [0]
    for raw in manifest.data.splitlines(keepends=True):
        offsets.append(offsets[-1] + len(raw))
    for line, data_url, metadata in manifest.good:
        if is_disputed(data_url):
            row = {"line": line, "code": "no_consensus", "byte_offset": offsets[line - 1]}
            errors.append(json.dumps(row | {"message": "No option won."}).encode())
            continue
        label = ["cat", "dog", "other"][line % 7 % 3]
        start = json.dumps({"line": line, "data_url": data_url, "consensus_label": label})
        middle = f',"metadata":{metadata or "null"},"status":"settled"}}'
        results.append((start[:-1] + middle).encode())
    for line, offset, code in manifest.bad:
        row = {"line": line, "code": code, "byte_offset": offset, "message": "It is bad."}
        errors.append(json.dumps(row).encode())
    return results, errors


def test_what_is_missing_there_twice_or_another_is_seen() -> None:
    manifest = make_manifest(300, bad_share=0.05, seed=3, hard=True)
    results, errors = written(manifest)
    assert compare(b"\n".join(results), b"\n".join(errors), manifest) == Discrepancies()
    for rows in (results, errors):
        lost = json.loads(rows[7])["line"]
        kept = [b"\n".join(row for row in each if row is not rows[7]) for each in (results, errors)]
        assert compare(kept[0], kept[1], manifest).lost == [lost]
    doubled = b"\n".join([*results, results[9]])
    line = json.loads(results[9])["line"]
    assert compare(doubled, b"\n".join(errors), manifest).doubled == [line]
    changed = b"\n".join(results).replace(b'"metadata":{}', b'"metadata":{ }', 1)
    assert len(compare(changed, b"\n".join(errors), manifest).wrong) == 1


def test_the_table_has_the_worst_of_several_tries_and_what_never_came() -> None:
    tries = [Outcome("kill -9 API", read_s=1.0, completed_s=2.0, all_s=3.0, note="a note")]
    tries.append(Outcome("kill -9 API", lost=2, read_s=4.0, human="not done"))
    text = table(tries)
    (row,) = (line for line in text.splitlines() if line.startswith("kill -9 API"))
    assert row.split()[3:10] == ["2", "2", "0", "4.0", "never", "never", "0.0"]
    assert "not done" in row
    assert "1 by a human" in text
    assert recovery_p95_s(tries[:1]) == 3.0
    assert not tries[1].is_good
