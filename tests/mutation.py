"""``python tests/mutation.py --sample 60 --seed 1``: which changes of the code do the tests not notice?

Cosmic Ray makes the changes ("mutants"). This program draws a sample and runs, for each, the tests that reach its line.
A mutant is killed if one of them fails. It prints each survivor as a diff: either a behaviour has no test, or the
change makes no difference. It works in a copy of the checkout, and takes the rooms in turn.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import suppress
from itertools import cycle, islice
from pathlib import Path
from typing import NamedTuple

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names
from coverage import CoverageData

#: What is mutated, and the folders whose tests have to notice.
ROOMS = {
    "rules": (["domain/**/*.py", "stores/apple/*.py"], ["tests/domain", "tests/stores", "tests/scale"]),
    "pipeline": (["pipeline/*.py"], ["tests/pipeline"]),
    "supervisor": (["otp/_supervis*.py", "otp/_simple_one_for_one.py"], ["tests/otp"]),
}
PYTEST = [sys.executable, "-m", "pytest", "-q", "-m", "not slow", "--hypothesis-profile", "short"]
HANG = ["-o", "faulthandler_timeout=120"]  # seconds of one test: a mutant may wait for ever
MEMORY_BYTES = 16 << 30  # of addresses, the stacks of threads among them: a mutant may fill a list for ever
#: Identity for equality is mostly the same. The last two want arguments.
NOT_USED = ("_Is", "_IsNot", "Is_Eq", "IsNot_NotEq", "VariableReplacer", "VariableInserter")


class Mutant(NamedTuple):
    path: Path
    line: int
    operator: str
    code: str


def meaning_of(code: str) -> str:
    tree = ast.parse(code)
    for node in ast.walk(tree):
        for field in ("annotation", "returns"):
            if hasattr(node, field):
                setattr(node, field, ast.Constant(None))
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.test = ast.Constant(None)
    return ast.dump(tree)


def mutants_of(room: str, seed: int) -> Iterator[Mutant]:
    """Yield mutants in random order, one for each place: a place with many possible changes weighs no more."""
    chance = random.Random(seed)
    places = defaultdict(list)
    for path in sorted({path for pattern in ROOMS[room][0] for path in Path("receipt_actors").glob(pattern)}):
        nodes = list(ast_nodes(get_ast(path.read_text(encoding="utf-8"))))
        for name in operator_names():
            if not name.endswith(NOT_USED):
                starts = [start for node in nodes for start, _ in get_operator(name)().mutation_positions(node)]
                for occurrence, start in enumerate(starts):
                    places[path, start].append((name, occurrence))
    for path, (line, column) in chance.sample(list(places), len(places)):
        name, occurrence = chance.choice(places[path, (line, column)])
        code = path.read_text(encoding="utf-8")
        mutated = mutate_code(code, get_operator(name)(), occurrence)
        with suppress(SyntaxError):  # it takes the lone * among parameters for an operator
            if mutated is not None and meaning_of(mutated) != meaning_of(code):
                yield Mutant(path, line, name.partition("/")[2], mutated)


def run(tests: list[str], *options: str) -> subprocess.CompletedProcess[str]:
    Path("tests-to-run").write_text("\n".join(tests), encoding="utf-8")  # too many for a command line
    return subprocess.run(
        [*PYTEST, *options, "@tests-to-run"],
        env={**os.environ, "PYTHONPATH": str(Path.cwd()), "COVERAGE_CORE": "ctrace"},  # others know no contexts
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES)),
        capture_output=True,
        text=True,
        check=False,
    )


def reached_by_tests_of(room: str) -> dict[Path, dict[int, list[str]]]:
    """Run a room's tests on the code as it is; return the tests that reach each line of each file."""
    done = run(ROOMS[room][1], "--cov=receipt_actors", "--cov-context=test", "--cov-report=")
    if done.returncode:
        sys.exit(f"{room}: its tests fail without a change\n{done.stdout[-3000:]}{done.stderr[-1000:]}")
    data = CoverageData()
    data.read()
    return {Path(path).relative_to(Path.cwd()): data.contexts_by_lineno(path) for path in data.measured_files()}


def is_killed(mutant: Mutant, lines: dict[int, list[str]], folders: list[str], number: int) -> bool:
    statement = max((line for line in lines if line <= mutant.line), default=0)
    tests = sorted({name.partition("|")[0] for name in lines.get(statement, ()) if name})
    tests.sort(key=lambda name: mutant.path.stem.strip("_") not in name)
    code = mutant.path.read_text(encoding="utf-8")
    mutant.path.write_text(mutant.code, encoding="utf-8")
    os.utime(mutant.path, (number, number))  # a time of its own: Python keeps compiled files by it
    try:
        # What only the import runs, any test may notice. No test at all: no code of the module runs.
        return bool(lines) and run(tests or folders, "-x", *HANG).returncode != 0
    finally:
        mutant.path.write_text(code, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, default=60, help="how many mutants")
    parser.add_argument("--seed", type=int, default=1, help="which ones")
    parser.add_argument("--room", choices=ROOMS, action="append", help="of this room alone; may be repeated")
    options = parser.parse_args()
    rooms = options.room or list(ROOMS)
    told = Counter[str]()
    with tempfile.TemporaryDirectory() as copy:
        shutil.copytree(".", copy, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*", "__pycache__"))
        os.chdir(copy)
        reached = {room: reached_by_tests_of(room) for room in rooms}
        drawn = {room: mutants_of(room, options.seed) for room in rooms}
        for number, room in enumerate(islice(cycle(rooms), options.sample), 1):
            mutant = next(drawn[room])
            before = mutant.path.read_text(encoding="utf-8").splitlines(keepends=True)
            killed = is_killed(mutant, reached[room].get(mutant.path, {}), ROOMS[room][1], number)
            told[f"{room} {'killed' if killed else 'survived'}"] += 1
            sys.stdout.write(f"{'killed' if killed else 'SURVIVED'} {mutant.path}:{mutant.line} {mutant.operator}\n")
            if not killed:
                after = mutant.code.splitlines(keepends=True)
                sys.stdout.writelines([*difflib.unified_diff(before, after, "before", str(mutant.path), n=2), "\n"])
            sys.stdout.flush()
    sys.stdout.writelines(f"{name}: {count}\n" for name, count in sorted(told.items()))


if __name__ == "__main__":
    main()
