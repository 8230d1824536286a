"""Arrays beside a sample log: what goes beyond its rows is cut, what they need must be there, unchanged."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval_suites.reconstruction.array_file import ArrayFile
from mmzoo.errors import InputError

rows_of_values = st.lists(st.lists(st.integers(-(2**31), 2**31 - 1), max_size=6), min_size=1, max_size=6)


@settings(max_examples=30, deadline=None)
@given(rows_of_values, st.data())
def test_rows_come_back_and_a_kill_between_array_and_line_leaves_no_trace(tmp_path_factory, rows, data):
    path = tmp_path_factory.mktemp("arrays") / "codes.bin"
    done = data.draw(st.integers(0, len(rows)))
    with ArrayFile(path, "i4", []) as file:
        sums = [file.append(np.array(row)) for row in rows]
    with path.open("ab") as torn:
        torn.write(b"\x01" * data.draw(st.integers(0, 3)))
    with ArrayFile(path, "i4", [len(row) for row in rows[:done]]) as file:
        again = [file.append(np.array(row)) for row in rows[done:]]
        assert again == sums[done:]
        found = [row.tolist() for row in file.rows(sums)]
    assert found == rows
    assert path.stat().st_size == 4 * sum(map(len, rows))


def test_a_file_that_lost_or_changed_what_its_rows_need_is_refused(tmp_path):
    path = tmp_path / "features.bin"
    with ArrayFile(path, "f4", []) as file:
        checksum = file.append(np.arange(4.0))
    content = bytearray(path.read_bytes())
    content[5] ^= 1
    path.write_bytes(content)
    with ArrayFile(path, "f4", [4]) as file, pytest.raises(InputError, match="CRC-32"):
        list(file.rows([checksum]))
    path.write_bytes(content[:-1])
    with pytest.raises(InputError, match="15 of 16 bytes"):
        ArrayFile(path, "f4", [4])
    path.unlink()
    with pytest.raises(InputError, match="0 of 16 bytes"):
        ArrayFile(path, "f4", [4])
