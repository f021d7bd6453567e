"""The kernels say the same compiled and as plain Python; which of the two it is, numba decides once for a process."""

import json
import os
import subprocess
import sys

from tests.samples import USER_FEATURES, Passage, cut, random_payments, small_pipeline

PLAIN = """
import json, numba, sys
from tests.samples import USER_FEATURES, Passage, cut, random_payments, small_pipeline
passed = Passage(small_pipeline(features=USER_FEATURES), "user").feed(cut(random_payments(5, 80), [40, 41]))
json.dump([not numba.config.DISABLE_JIT, repr(passed.rows), repr(passed.letters)], sys.stdout)
"""


def test_compiled_and_plain_python_agree_bit_for_bit() -> None:
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run([sys.executable, "-c", PLAIN], env=environment, capture_output=True, text=True, check=True)
    is_compiled, rows, letters = json.loads(done.stdout)
    here = Passage(small_pipeline(features=USER_FEATURES), "user").feed(cut(random_payments(5, 80), [40, 41]))
    assert not is_compiled
    assert (rows, letters) == (repr(here.rows), repr(here.letters))
