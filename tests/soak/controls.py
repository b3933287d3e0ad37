"""Tries the broken engines and prints what finds them out.

python -m tests.soak controls
"""

from __future__ import annotations

from collections.abc import Sequence

from controls import CONTROLS, Findings, try_control

__all__ = ["main"]


def main(argv: Sequence[str]) -> int:
    """Prints the table; 0 when every broken engine is caught and the real one never is."""
    if argv:
        raise SystemExit("python -m tests.soak controls takes no arguments.")
    findings = [try_control(control) for control in CONTROLS]
    width = max(len(found.control) for found in findings)
    for found in findings:
        print(f"{found.control:{width}}  {_word(found)}")
        for what, sentences in (
            ("at a step", found.at_a_step),
            ("at the end", found.at_the_end),
            ("the judge", found.by_the_judge),
            ("the real one", found.of_the_real_one),
        ):
            if sentences:
                print(f"{'':{width}}  {what}: {sentences[0][:120]} ({len(sentences)} in all)")
    good = sum(found.caught and not found.of_the_real_one for found in findings)
    print(f"{good} of {len(findings)}")
    return int(good != len(findings))


def _word(found: Findings) -> str:
    if found.of_the_real_one:
        return "THE REAL ENGINE FAILS"
    return "caught" if found.caught else "NOT CAUGHT"
