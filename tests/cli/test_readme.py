"""The README's first steps run as they stand there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.cli.fix_command import ROOT, Run


def test_the_first_steps(run: Run, tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text()
    (block,) = re.findall(r"```python\n# shop\.py\n(.*?)```", readme, re.DOTALL)
    (steps,) = re.findall(r"```console\n(\$ replstore init.*?)```", readme, re.DOTALL)
    (tmp_path / "shop.py").write_text(block)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("REPLSTORE_")}
    said = []
    for line in steps.splitlines():
        program, *arguments = line.removeprefix("$ ").partition("#")[0].split()
        for _ in range(2 if program == "python" else 1):  # the second time nothing takes effect twice
            if program == "replstore":
                done = run(*arguments, forked=False)
            else:
                done = subprocess.run(
                    [sys.executable, *arguments], cwd=tmp_path, env={**clean, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60
                )
            assert done.returncode == 0, done.stdout + done.stderr
        said.append(done.stdout)
    shop, status, check, repair = said[1:]
    assert shop == "True\n"
    assert status.startswith("Primary writes, standby follows (term 1).")
    assert check.rstrip().endswith("Equal: 1 row in 1 table.")
    assert repair == "There is nothing to repair.\n"
