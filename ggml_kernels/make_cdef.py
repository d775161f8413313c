"""Write the part of genie.h between its CFFI marks: what cffi's ABI mode reads."""

import sys
from pathlib import Path

header, output = map(Path, sys.argv[1:])
text = header.read_text(encoding="utf-8").split("/* CFFI BEGIN */")[1].split("/* CFFI END */")[0]
output.write_text(text.strip() + "\n", encoding="utf-8")
