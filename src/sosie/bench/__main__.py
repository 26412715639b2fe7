"""`python -m sosie.bench FILE --size small --json OUT`: a benchmark's `measure`, whatever else its file can do."""

import importlib
import sys
from pathlib import Path

from sosie.bench.script import script

file = Path(sys.argv.pop(1))
sys.path.insert(0, str(file.parent))
module = importlib.import_module(file.stem)
script(module.measure, module.__doc__)
