"""Write what Python needs to call the core: `make_cdef.py genie.h genie_bench.h genie_cdef.py`.

cffi reads the parts between the headers' CFFI marks once, here, and not at each import. The file it writes is plain
Python for its ABI mode.
"""

import sys
from pathlib import Path

import cffi


def cut(header: Path) -> str:
    """The declarations between the CFFI marks of a header."""
    return header.read_text(encoding="utf-8").split("/* CFFI BEGIN */")[1].split("/* CFFI END */")[0].strip() + "\n"


def main() -> None:
    *headers, output = map(Path, sys.argv[1:])
    ffi = cffi.FFI()
    ffi.cdef("\n".join(map(cut, headers)))
    ffi.set_source(output.stem, None)
    ffi.emit_python_code(str(output))


if __name__ == "__main__":
    main()
